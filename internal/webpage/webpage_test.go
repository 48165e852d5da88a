package webpage

import (
	"encoding/xml"
	"html/template"
	"strings"
	"testing"
)

// A page is well-formed, has nothing that a browser would run or fetch, and what it is filled with is no markup.
func TestRender(t *testing.T) {
	page := Parse(`{{template "head" "a title"}}<p title="{{safe .}}">{{safe .}} {{loud}}</p>{{template "foot"}}`, template.FuncMap{"loud": func() string { return "<LOUD>" }})
	text, err := Render(page, "<script>alert(1)</script>\"'\u202eevil\x1b")
	if err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(strings.NewReader(strings.Replace(string(text), "<!DOCTYPE html>", "", 1)))
	d.Entity = xml.HTMLEntity
	for {
		token, err := d.Token()
		if token == nil {
			if err.Error() != "EOF" {
				t.Error(err)
			}
			break
		}
		e, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		if e.Name.Local == "script" || e.Name.Local == "link" || e.Name.Local == "img" {
			t.Errorf("the page has an element %s", e.Name.Local)
		}
		for _, a := range e.Attr {
			if a.Name.Local == "src" || a.Name.Local == "href" || strings.HasPrefix(a.Name.Local, "on") {
				t.Errorf("the page has %s=%q", a.Name.Local, a.Value)
			}
		}
	}
	for _, want := range []string{"<title>a title</title>", "default-src 'none'", "prefers-color-scheme: dark", `&lt;script&gt;`, `\x202eevil\x1b`, "&lt;LOUD&gt;"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the page lacks %s:\n%s", want, text)
		}
	}
	for _, not := range []string{"url(", "@import", "//"} {
		if strings.Contains(string(text), not) {
			t.Errorf("the page has %s", not)
		}
	}
	if _, err := Render(page, struct{}{}); err == nil {
		t.Error("what is no text was shown as one")
	}
}
