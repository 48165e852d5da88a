package jinja

import (
	"fmt"
	"strings"
	"time"
)

// strftime writes a time without a zone as C's strftime does in the C locale, flags included.
func strftime(t *text, now time.Time, format string) {
	for {
		i := strings.IndexByte(format, '%')
		if i < 0 || i+1 == len(format) {
			t.add(format)
			return
		}
		t.add(format[:i])
		rest := format[i+1:]
		flag := byte(0)
		if strings.IndexByte("-_0^#", rest[0]) >= 0 && len(rest) > 1 {
			flag, rest = rest[0], rest[1:]
		}
		s, ok := timeField(now, rest[0], flag)
		if !ok {
			s = format[i : len(format)-len(rest)+1]
		}
		t.add(s)
		format = rest[1:]
	}
}

// padInt writes n at least width wide: with zeros, or what the flag says.
func padInt(n, width int, flag, def byte) string {
	if flag == 0 || flag == '^' || flag == '#' {
		flag = def
	}
	switch flag {
	case '-':
		return fmt.Sprint(n)
	case '_':
		return fmt.Sprintf("%*d", width, n)
	}
	return fmt.Sprintf("%0*d", width, n)
}

func timeField(now time.Time, c, flag byte) (string, bool) {
	text := func(s string) (string, bool) {
		if flag == '^' || flag == '#' {
			s = strings.ToUpper(s)
		}
		return s, true
	}
	num := func(n, width int) (string, bool) { return padInt(n, width, flag, '0'), true }
	twelve := (now.Hour()+11)%12 + 1
	year, week := now.ISOWeek()
	switch c {
	case 'a', 'A', 'b', 'B', 'h':
		return text(now.Format(map[byte]string{'a': "Mon", 'A': "Monday", 'b': "Jan", 'B': "January", 'h': "Jan"}[c]))
	case 'c':
		return text(now.Format("Mon Jan _2 15:04:05 2006"))
	case 'C':
		return num(now.Year()/100, 2)
	case 'd':
		return num(now.Day(), 2)
	case 'D', 'x':
		return now.Format("01/02/06"), true
	case 'e':
		return padInt(now.Day(), 2, flag, '_'), true
	case 'f':
		return fmt.Sprintf("%06d", now.Nanosecond()/1000), true
	case 'F':
		return now.Format("2006-01-02"), true
	case 'g':
		return num(year%100, 2)
	case 'G':
		return num(year, 4)
	case 'H':
		return num(now.Hour(), 2)
	case 'I':
		return num(twelve, 2)
	case 'j':
		return num(now.YearDay(), 3)
	case 'k':
		return padInt(now.Hour(), 2, flag, '_'), true
	case 'l':
		return padInt(twelve, 2, flag, '_'), true
	case 'm':
		return num(int(now.Month()), 2)
	case 'M':
		return num(now.Minute(), 2)
	case 'n':
		return "\n", true
	case 'p':
		if flag == '#' {
			return now.Format("pm"), true
		}
		return now.Format("PM"), true
	case 'P':
		return now.Format("pm"), true
	case 'r':
		return now.Format("03:04:05 PM"), true
	case 'R':
		return now.Format("15:04"), true
	case 's':
		return fmt.Sprint(now.Unix()), true
	case 'S':
		return num(now.Second(), 2)
	case 't':
		return "\t", true
	case 'T', 'X':
		return now.Format("15:04:05"), true
	case 'u':
		return fmt.Sprint((int(now.Weekday())+6)%7 + 1), true
	case 'U':
		return num((now.YearDay()+6-int(now.Weekday()))/7, 2)
	case 'V':
		return num(week, 2)
	case 'w':
		return fmt.Sprint(int(now.Weekday())), true
	case 'W':
		return num((now.YearDay()+6-(int(now.Weekday())+6)%7)/7, 2)
	case 'y':
		return num(now.Year()%100, 2)
	case 'Y':
		return fmt.Sprint(now.Year()), true
	case 'z', 'Z':
		return "", true
	case '%':
		return "%", true
	}
	return "", false
}
