package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// plan says how often everything is measured.
type plan struct {
	rounds int
	// limit is for everything, from began on.
	limit   time.Duration
	began   time.Time
	figures []figure
	// round measures every figure once, limits and stages in turn, but for those
	// that need a program that is not there.
	round func(context.Context) ([]sample, error)
	// busy is the share of this machine's CPUs that is in use, from 0 to 1;
	// negative where it is not known.
	busy func(context.Context) float64
	note func(format string, args ...any)
}

// measured is what the rounds of a plan yielded.
type measured struct {
	// samples are by round.
	samples [][]sample
	// otherWork is the largest share of the CPUs in use before a round.
	otherWork float64
}

// errNothing tells that a round has no figure.
var errNothing = errors.New("no figure was measured")

// run measures until all rounds are done, or until another one would pass the
// limit. Beside an error it returns what was measured before.
func (p *plan) run(ctx context.Context) (measured, error) {
	m := measured{otherWork: -1}
	ctx, cancel := context.WithDeadlineCause(ctx, p.began.Add(p.limit), fmt.Errorf("%s are over", p.limit))
	defer cancel()
	var longest time.Duration
	for n := 1; n <= p.rounds; n++ {
		if left := p.limit - time.Since(p.began); n > 1 && longest+longest/10 > left {
			p.note("%d of %d rounds: another one would take longer than the %s that are left", n-1, p.rounds, left.Round(time.Second))
			break
		}
		m.otherWork = max(m.otherWork, p.busy(ctx))
		p.note("round %d of %d", n, p.rounds)
		from := time.Now()
		samples, err := p.round(ctx)
		longest = max(longest, time.Since(from))
		if len(samples) > 0 {
			m.samples = append(m.samples, samples)
		}
		switch {
		case context.Cause(ctx) != nil:
			return m, fmt.Errorf("round %d: %w", n, context.Cause(ctx))
		case err != nil:
			return m, fmt.Errorf("round %d: %w", n, err)
		case len(samples) == 0:
			return m, fmt.Errorf("round %d: %w", n, errNothing)
		}
		for _, f := range p.figures {
			if !slices.ContainsFunc(samples, func(s sample) bool { return s.figure == f.name }) {
				p.note("not run: %s, %s", f.workload, f.contender)
			}
		}
	}
	return m, nil
}
