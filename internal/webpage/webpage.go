// Package webpage makes reports of one HTML file each: with one look, in light and in dark, for wide and for narrow
// windows, and with nothing in them that a browser would fetch or run.
package webpage

import (
	"bytes"
	_ "embed"
	"html/template"
	"maps"

	"github.com/biolora/biolora/internal/visible"
)

//go:embed page.html.tmpl
var frame string

// Parse reads the text of a page, which begins with {{template "head" TITLE}} and ends with {{template "foot"}}. Beside
// the given functions it has safe, which is visible.Text. A text that is no template panics, as template.Must does: it is
// part of the program.
func Parse(text string, funcs template.FuncMap) *template.Template {
	all := template.FuncMap{"safe": visible.Text}
	maps.Copy(all, funcs)
	t := template.Must(template.New("frame").Funcs(all).Parse(frame))
	return template.Must(t.New("page").Parse(text))
}

// Render fills a page.
func Render(page *template.Template, data any) ([]byte, error) {
	var b bytes.Buffer
	err := page.Execute(&b, data)
	return b.Bytes(), err
}
