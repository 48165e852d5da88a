package memory

import (
	"runtime"
	"testing"
	"testing/fstest"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]int64{
		"1B": 1, "12GiB": 12 << 30, "1.5 GiB": 3 << 29, "800MB": 800e6, "2kB": 2000, "2KB": 2000, "2KiB": 2048, " 1TB ": 1e12, "1TiB": 1 << 40,
	} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("Parse(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "12", "12G", "GiB", "-1GiB", "0B", "0.5B", "NaNGB", "InfB", "1e30GiB", "1 GiB B", "0x10MB2"} {
		_, err := Parse(text)
		if err == nil || err.Error() != `"`+text+`" is no size: want a number and a unit, such as 12GiB or 800MB` {
			t.Errorf("Parse(%q): %v", text, err)
		}
	}
}

func TestFormat(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 bytes", 999: "999 bytes", 1000: "0.98 KiB", 1 << 10: "1.00 KiB", 1000 << 10: "0.98 MiB", 1 << 20: "1.00 MiB", 123 << 20: "123 MiB", 999 << 20: "999 MiB", 1000 << 20: "0.98 GiB", 1 << 30: "1.00 GiB",
		13 << 30: "13.0 GiB", 1 << 40: "1024 GiB", -(5 << 30): "-5.00 GiB",
	} {
		if got := Format(n); got != want {
			t.Errorf("Format(%d) = %q, want %q", n, got, want)
		}
	}
}

func system(files map[string]string) fstest.MapFS {
	fs := fstest.MapFS{}
	for name, text := range files {
		fs[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return fs
}

func TestAvailable(t *testing.T) {
	const meminfo = "MemTotal:       16000 kB\nMemFree:         1000 kB\nMemAvailable:    8000 kB\n"
	with := func(files map[string]string) map[string]string {
		files["proc/meminfo"] = meminfo
		return files
	}
	for name, c := range map[string]struct {
		files map[string]string
		want  Room
		ok    bool
	}{
		"nothing":   {map[string]string{}, Room{}, false},
		"no groups": {with(map[string]string{}), Room{8000 << 10, "MemAvailable"}, true},
		"no limit": {with(map[string]string{
			"proc/self/cgroup":             "0::/\n",
			"sys/fs/cgroup/memory.max":     "max\n",
			"sys/fs/cgroup/memory.current": "1\n",
		}), Room{8000 << 10, "MemAvailable"}, true},
		"v2": {with(map[string]string{
			"proc/self/cgroup":                 "0::/a/b\n",
			"sys/fs/cgroup/a/memory.max":       "4096000\n",
			"sys/fs/cgroup/a/memory.current":   "4000000\n",
			"sys/fs/cgroup/a/memory.stat":      "anon 1\nactive_file 100000\ninactive_file 4000\nslab 7\n",
			"sys/fs/cgroup/a/b/memory.max":     "max\n",
			"sys/fs/cgroup/a/b/memory.current": "3000000\n",
		}), Room{200000, "the limit of control group /sys/fs/cgroup/a"}, true},
		"v2 in a name space": {with(map[string]string{
			"proc/self/cgroup":             "0::/\n",
			"sys/fs/cgroup/memory.max":     "1000\n",
			"sys/fs/cgroup/memory.current": "2000\n",
		}), Room{0, "the limit of control group /sys/fs/cgroup"}, true},
		"v1": {with(map[string]string{
			"proc/self/cgroup":                                      "5:cpu,cpuacct:/x\n4:memory:/docker/f00\nnonsense\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":            "9223372036854771712\n",
			"sys/fs/cgroup/memory/memory.usage_in_bytes":            "1\n",
			"sys/fs/cgroup/memory/docker/f00/memory.limit_in_bytes": "3000\n",
			"sys/fs/cgroup/memory/docker/f00/memory.usage_in_bytes": "1000\n",
			"sys/fs/cgroup/memory/docker/f00/memory.stat":           "cache 9\ntotal_active_file 10\ntotal_inactive_file 20\n",
		}), Room{2030, "the limit of control group /sys/fs/cgroup/memory/docker/f00"}, true},
	} {
		if got, ok := available(system(c.files)); got != c.want || ok != c.ok {
			t.Errorf("%s: %+v, %v; want %+v", name, got, ok, c.want)
		}
	}
}

func TestUse(t *testing.T) {
	got, ok := use(system(map[string]string{"proc/self/status": "Name:\tx y\nVmRSS:\t 30 kB\nRssAnon:\t    10 kB\nRssFile:\t 20 kB\n"}))
	if want := (Use{10 << 10, 20 << 10}); got != want || !ok {
		t.Errorf("%+v, %v; want %+v", got, ok, want)
	}
	if _, ok := use(system(nil)); ok {
		t.Error("a system that does not tell")
	}
}

// What is held follows what is allocated, and what this process has in memory follows what is written to.
func TestHeld(t *testing.T) {
	const size = 64 << 20
	before := Held()
	data := make([]byte, size)
	for i := range data {
		data[i] = 1
	}
	if more := Held() - before; more < size || more > size+size/8 {
		t.Errorf("%d bytes more are held, %d were allocated", more, size)
	}
	if u, ok := Now(); runtime.GOOS == "linux" && (!ok || u.Own < size) {
		t.Errorf("%+v, %v after %d bytes were written", u, ok, size)
	}
	runtime.KeepAlive(data)
	if more := Held() - before; more > size/8 {
		t.Errorf("%d bytes more are held when nothing is used", more)
	}
}
