//go:build linux || darwin

package weights

import "golang.org/x/sys/unix"

// freeBytes is the space that is left for files in dir; false if the system does not say.
func freeBytes(dir string) (int64, bool) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, false
	}
	return int64(st.Bavail) * int64(st.Bsize), true
}
