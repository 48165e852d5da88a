package ask

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// Endpoint is where an OpenAI-compatible API is.
type Endpoint struct {
	// BaseURL is what /chat/completions is put behind, such as https://api.openai.com/v1.
	BaseURL string
	// Key goes into the Authorization header and nowhere else: it is cut out of whatever the endpoint says
	// (a key of less than 8 bytes is taken for a word). Empty: no header.
	Key string
}

// OpenAI is the address of OpenAI's own API.
const OpenAI = "https://api.openai.com/v1"

// maxResponse is how many bytes of a response are read.
const maxResponse = 16 << 20

// NewOpenAI returns the model behind an endpoint. Nothing but its arguments decides what is asked of whom: the variables of
// the environment that OpenAI's library looks at are not.
func NewOpenAI(e Endpoint) (Model, error) {
	u, err := url.Parse(e.BaseURL)
	if err != nil {
		return nil, fmt.Errorf("the base URL cannot be read: %w", errors.Unwrap(err)) // without the URL, which may have a password
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("base URL %q: want http:// or https:// and a host", u.Redacted())
	}
	options := []option.RequestOption{
		option.WithBaseURL(e.BaseURL),
		option.WithMaxRetries(0), // Run tries again, and writes it down
		option.WithHTTPClient(&http.Client{Transport: bounded{http.DefaultTransport}}),
	}
	if e.Key != "" {
		options = append(options, option.WithAPIKey(e.Key))
	}
	return &chat{key: e.Key, service: openai.NewChatCompletionService(options...)}, nil
}

// bounded ends responses that are too long.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.next.RoundTrip(r)
	if err == nil {
		res.Body = &boundedBody{res.Body, maxResponse}
	}
	return res, err
}

type boundedBody struct {
	io.ReadCloser
	left int
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("the response has more than %d bytes", maxResponse)
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// chat is a Model.
type chat struct {
	key     string
	service openai.ChatCompletionService
}

// Ask asks for one completion. Failures that a later attempt may not see are temporary: 408, 409, 425, 429 but for an empty
// account, 5xx, connections that break or time out, and responses that are no completion.
func (c *chat) Ask(ctx context.Context, r Request) (Answer, error) {
	var res *http.Response
	done, err := c.service.New(ctx, params(r), option.WithResponseInto(&res))
	if err != nil {
		return c.refused(ctx, r, res, err)
	}
	if done == nil || len(done.Choices) == 0 {
		return Answer{}, &CallError{Err: errors.New("the response has no choices"), Status: res.StatusCode, Temporary: true}
	}
	choice := done.Choices[0]
	if choice.FinishReason == "" {
		return Answer{}, &CallError{Err: errors.New("the response does not say why the answer ended"), Status: res.StatusCode, Temporary: true}
	}
	a := Answer{
		Text:   c.clean(choice.Message.Content),
		Finish: c.clean(string(choice.FinishReason)),
		Model:  c.clean(done.Model),
		ID:     c.clean(done.ID),
		Usage:  Usage{Prompt: done.Usage.PromptTokens, Completion: done.Usage.CompletionTokens},
	}
	if a.Usage.Prompt <= 0 || a.Usage.Completion < 0 {
		prompt := r
		prompt.MaxTokens, prompt.MaxCompletionTokens = 0, 0
		a.Usage = Usage{Prompt: estimate(prompt), Completion: Tokens(a.Text), Estimated: true}
	}
	return a, nil
}

func params(r Request) openai.ChatCompletionNewParams {
	p := openai.ChatCompletionNewParams{Model: r.Model}
	for _, m := range r.Messages {
		switch m.Role {
		case "system":
			p.Messages = append(p.Messages, openai.SystemMessage(m.Content))
		case "assistant":
			p.Messages = append(p.Messages, openai.AssistantMessage(m.Content))
		default:
			p.Messages = append(p.Messages, openai.UserMessage(m.Content))
		}
	}
	if r.Temperature != nil {
		p.Temperature = openai.Float(*r.Temperature)
	}
	if r.TopP != nil {
		p.TopP = openai.Float(*r.TopP)
	}
	if r.MaxTokens > 0 {
		p.MaxTokens = openai.Int(int64(r.MaxTokens))
	}
	if r.MaxCompletionTokens > 0 {
		p.MaxCompletionTokens = openai.Int(int64(r.MaxCompletionTokens))
	}
	return p
}

// refused says what a failure means. An answer that the endpoint's filter of contents forbids is an answer without text:
// the same request would be refused again, and others need not be.
func (c *chat) refused(ctx context.Context, r Request, res *http.Response, err error) (Answer, error) {
	if ctx.Err() != nil {
		return Answer{}, fmt.Errorf("%s: %w", c.clean(err.Error()), ctx.Err())
	}
	call := &CallError{Temporary: true}
	message, code, kind := err.Error(), "", ""
	if api, ok := errors.AsType[*openai.Error](err); ok {
		code, kind = cmp.Or(api.Code, api.Type), api.Type
		message = strings.TrimSpace(strings.Join([]string{api.Code, api.Message}, " "))
	}
	if res == nil {
		call.Err = errors.New(c.clean(message))
		return Answer{}, call
	}
	if media, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); res.StatusCode < 300 && !strings.Contains(media, "json") {
		message = fmt.Sprintf("the response is %s, not JSON: is the base URL right?", cmp.Or(media, "of no type"))
	}
	message = cmp.Or(message, http.StatusText(res.StatusCode))
	call.Status = res.StatusCode
	call.After = retryAfter(res.Header, time.Now())
	call.Err = errors.New(c.clean(strings.TrimSpace(fmt.Sprintf("HTTP status %d: %s", res.StatusCode, message))))
	switch {
	case code == "content_filter" || code == "content_policy_violation":
		return Answer{Finish: "content_filter", Model: r.Model}, nil
	case code == "context_length_exceeded" || kind == "exceed_context_size_error" ||
		res.StatusCode == 400 && strings.Contains(message, "maximum context length"): // OpenAI's, llama.cpp's, vLLM's way to say it
		call.Temporary, call.TooLong = false, true
	case code == "insufficient_quota":
		call.Temporary = false
	case res.StatusCode == 408 || res.StatusCode == 409 || res.StatusCode == 425 || res.StatusCode == 429:
	case res.StatusCode >= 300 && res.StatusCode < 500:
		call.Temporary = false
	}
	return Answer{}, call
}

// retryAfter is how long a response asks to wait: seconds or a date, or milliseconds in retry-after-ms.
func retryAfter(h http.Header, now time.Time) time.Duration {
	if ms, err := strconv.ParseFloat(h.Get("Retry-After-Ms"), 64); err == nil {
		return duration(ms / 1000)
	}
	v := strings.TrimSpace(h.Get("Retry-After"))
	if s, err := strconv.ParseFloat(v, 64); err == nil {
		return duration(s)
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

func duration(seconds float64) time.Duration {
	const longest = 1000 * 24 * time.Hour
	if !(seconds > 0) {
		return 0
	}
	return time.Duration(min(seconds, longest.Seconds()) * float64(time.Second))
}

// secret is how long a key is at least that is one: servers without keys are given words such as "none" or "EMPTY".
const secret = 8

// clean cuts the key out of a text, should an endpoint repeat it, and in the form in which JSON may have it.
func (c *chat) clean(text string) string {
	if len(c.key) < secret {
		return text
	}
	text = strings.ReplaceAll(text, c.key, "[key]")
	if quoted, err := json.Marshal(c.key); err == nil {
		text = strings.ReplaceAll(text, strings.Trim(string(quoted), `"`), "[key]")
	}
	return text
}
