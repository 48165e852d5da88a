package memory

import (
	"bufio"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
)

// Use is what a process has in memory, in bytes.
type Use struct {
	Own  int64 // its own pages
	File int64 // pages of mapped files, which the system can take back
}

// Now is what this process has in memory. Only Linux tells.
func Now() (Use, bool) { return use(root) }

// Total is the memory that the system has. Only Linux tells.
func Total() (int64, bool) {
	n, ok := fields(root, "proc/meminfo")["MemTotal"]
	return n << 10, ok
}

// Room is memory that a process may still take.
type Room struct {
	Bytes int64
	From  string // what says so
}

// Available is what the system could still give to this process: what is free or can be freed, and what its control
// groups (v1 and v2) leave of their limits. Pages of files count as free. Only Linux tells.
func Available() (Room, bool) { return available(root) }

var root = os.DirFS("/")

func use(sys fs.FS) (u Use, ok bool) {
	f := fields(sys, "proc/self/status")
	own, ok := f["RssAnon"]
	return Use{Own: own << 10, File: f["RssFile"] << 10}, ok
}

func available(sys fs.FS) (Room, bool) {
	free, ok := fields(sys, "proc/meminfo")["MemAvailable"]
	least := Room{free << 10, "MemAvailable"}
	for _, g := range groups(sys) {
		if n, limited := g.left(sys); limited && (!ok || n < least.Bytes) {
			least, ok = Room{n, "the limit of control group /" + g.dir}, true
		}
	}
	if !ok {
		return Room{}, false
	}
	least.Bytes = max(0, least.Bytes)
	return least, true
}

// group is a control group's directory, and how the version calls what it holds.
type group struct {
	dir                    string
	limit, used, stat      string
	fileActive, fileUnused string
}

// groups lists the process's memory control groups and those that these lie in.
func groups(sys fs.FS) (gs []group) {
	data, err := fs.ReadFile(sys, "proc/self/cgroup")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(data)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 {
			continue
		}
		var g group
		switch {
		case part[0] == "0" && part[1] == "":
			g = group{"sys/fs/cgroup", "memory.max", "memory.current", "memory.stat", "active_file", "inactive_file"}
		case hasWord(part[1], "memory"):
			g = group{"sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat",
				"total_active_file", "total_inactive_file"}
		default:
			continue
		}
		top := g.dir
		for p := path.Join(top, part[2]); ; p = path.Dir(p) {
			g.dir = p
			gs = append(gs, g)
			if p == top || !strings.HasPrefix(p, top) {
				break
			}
		}
	}
	return gs
}

func hasWord(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if w == word {
			return true
		}
	}
	return false
}

// left is what the group may still take; false where it has no limit, or cannot be seen.
func (g *group) left(sys fs.FS) (int64, bool) {
	limit, ok := number(sys, path.Join(g.dir, g.limit))
	used, known := number(sys, path.Join(g.dir, g.used))
	if !ok || !known || limit >= 1<<60 { // v1 writes a huge number for none
		return 0, false
	}
	stat := fields(sys, path.Join(g.dir, g.stat))
	return limit - used + stat[g.fileActive] + stat[g.fileUnused], true
}

// number reads a file that holds one; false for "max" and what is no number.
func number(sys fs.FS, name string) (int64, bool) {
	data, err := fs.ReadFile(sys, name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return n, err == nil
}

// fields reads lines of a name and a number.
func fields(sys fs.FS, name string) map[string]int64 {
	f, err := sys.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	found := map[string]int64{}
	for s := bufio.NewScanner(f); s.Scan(); {
		words := strings.Fields(s.Text())
		if len(words) < 2 {
			continue
		}
		if n, err := strconv.ParseInt(words[1], 10, 64); err == nil {
			found[strings.TrimSuffix(words[0], ":")] = n
		}
	}
	return found
}
