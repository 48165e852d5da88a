package main

import (
	"strings"
	"testing"
)

func TestSharingFlags(t *testing.T) {
	for _, c := range []struct{ flags, want string }{
		{"", "auto"}, {"--share-prefixes", "always"}, {"--no-share-prefixes", "never"},
	} {
		r := parsed(t, strings.Fields(c.flags)...)
		if got := r.options().SharePrefixes; got != c.want {
			t.Errorf("%q: SharePrefixes is %q, want %q", c.flags, got, c.want)
		}
	}
	if !parsed(t, "--group-by-prefix").options().GroupByPrefix {
		t.Error("--group-by-prefix changes nothing")
	}
	var s Settings
	s.SharePrefixes, s.NoSharePrefixes = true, true
	if err := s.validate(); err == nil || !strings.Contains(err.Error(), "--share-prefixes and --no-share-prefixes are both given") {
		t.Errorf("both: %v", err)
	}
}
