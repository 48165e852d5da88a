package ask

import (
	"context"
	"sync"
	"time"
)

// pace spaces what is spent so that it stays within a rate a minute, from the first second on: no burst at the beginning
// that an endpoint with a shorter window than a minute would refuse. The zero rate is no limit.
type pace struct {
	perMinute float64

	mu    sync.Mutex
	next  time.Time // when more may be spent
	until time.Time // nothing before this
}

func newPace(perMinute float64) *pace { return &pace{perMinute: perMinute} }

// wait spends n when it is time.
func (p *pace) wait(ctx context.Context, n float64) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		d := p.take(n)
		if d <= 0 {
			return nil
		}
		if err := sleep(ctx, d); err != nil {
			return err
		}
	}
}

// take spends n, or says how long there is to wait.
func (p *pace) take(n float64) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if d := p.until.Sub(now); d > 0 {
		return d
	}
	if d := p.next.Sub(now); d > 0 {
		return d
	}
	p.next = now.Add(p.time(n))
	return 0
}

// correct spends n more; below 0 it gives back.
func (p *pace) correct(n float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(p.time(n))
}

// pause lets nothing through for a time.
func (p *pace) pause(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if until := time.Now().Add(d); until.After(p.until) {
		p.until = until
	}
}

func (p *pace) time(n float64) time.Duration {
	if p.perMinute == 0 {
		return 0
	}
	return time.Duration(n / p.perMinute * float64(time.Minute))
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
