package workflows_test

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/activities/fleet"
	"github.com/millrace-io/millrace/workflows"
)

// previews answers for the activity Preview.
func (w *world) previews(f func(activities.PreviewInput) (activities.PreviewResult, error)) {
	register(w, "Preview", func(_ context.Context, in activities.PreviewInput) (activities.PreviewResult, error) { return f(in) })
}

func TestAPlanChangesNothing(t *testing.T) {
	w := newWorld(t)
	next := shop
	next.Pool, next.Tables, next.Freshness = "large", []string{"public.b", "public.a"}, new(2*time.Second)
	next.Rules = []fleet.Rule{{Tables: []string{"public.a"}, Options: fleet.Options{Casts: map[string]string{"c": "string"}}}}
	w.previews(func(in activities.PreviewInput) (activities.PreviewResult, error) {
		if !in.Running || !reflect.DeepEqual(in.Known, []activities.PreviewKnown{{OID: 1, Recopied: true}}) {
			t.Errorf("asked for %+v", in)
		}
		return activities.PreviewResult{Tables: []activities.PreviewTable{
			{OID: 2, Name: "public.b", Copied: true, Rows: 7},
			{OID: 1, Name: "public.a", Copied: true, Rows: -1, Bytes: 8192},
		}}, nil
	})
	var planned, same, foreign *request[workflows.Planned]
	w.at(time.Second, func() {
		planned = ask[workflows.Planned](w, workflows.Plan, "1", workflows.PlanInput{Config: next})
	})
	w.at(2*time.Second, func() {
		p := planned.out
		if !planned.done || planned.err != nil || !p.Running || !p.Changed || len(p.Changes) != 1 || p.Changes[0].Key != "pool" || len(p.Tables) != 2 {
			t.Fatalf("planned %+v, %v", p, planned.err)
		}
		a, b := p.Tables[0], p.Tables[1]
		if a.Act != workflows.ChangeTable || !a.Copied || a.Rows != -1 || a.Bytes != 8192 || len(a.Changes) != 2 || a.Changes[0].Key != "casts.c" || a.Changes[1].New != "2s" {
			t.Errorf("planned %+v", a)
		}
		if b.Act != workflows.AddTable || !b.Copied || b.Rows != 7 {
			t.Errorf("planned %+v", b)
		}
		w.phase(workflows.Running, "")
		if s := w.status(); s.Pool != "default" || len(w.of("Prepare")) != 1 {
			t.Errorf("the plan was carried out: %+v", s)
		}
		w.previews(func(activities.PreviewInput) (activities.PreviewResult, error) {
			return activities.PreviewResult{}, retries("SOURCE_UNREACHABLE")
		})
		same = ask[workflows.Planned](w, workflows.Plan, "2", workflows.PlanInput{Config: shop})
		other := shop
		other.Name = "crm"
		foreign = ask[workflows.Planned](w, workflows.Plan, "3", workflows.PlanInput{Config: other})
	})
	w.at(3*time.Second, func() {
		if p := same.out; !same.done || p.Changed || p.Unasked == nil || p.Unasked.Code != "SOURCE_UNREACHABLE" {
			t.Errorf("planned %+v, %v", p, same.err)
		}
		if foreign.rejected == nil {
			t.Error("a plan for another database was accepted")
		}
		w.remove()
	})
	w.run()
}

func TestAConfigurationIsAppliedAsItWasPlanned(t *testing.T) {
	w := newWorld(t)
	w.previews(func(activities.PreviewInput) (activities.PreviewResult, error) {
		return activities.PreviewResult{}, nil
	})
	first, second, less := shop, shop, shop
	first.Freshness, second.Freshness = new(2*time.Second), new(3*time.Second)
	less.Tables = []string{"public.b"}
	var planned *request[workflows.Planned]
	var one, two, three, four, five *request[workflows.Accepted]
	apply := func(id string, in workflows.ApplyInput) *request[workflows.Accepted] {
		return ask[workflows.Accepted](w, workflows.Apply, id, in)
	}
	w.at(time.Second, func() {
		planned = ask[workflows.Planned](w, workflows.Plan, "1", workflows.PlanInput{Config: first})
	})
	w.at(2*time.Second, func() {
		w.prepare = func(activities.PrepareInput) (activities.PrepareResult, error) {
			return prepared(), retries("SOURCE_BLOCKED")
		}
		one = apply("2", workflows.ApplyInput{Config: first, Revision: planned.out.Revision})
		two = apply("3", workflows.ApplyInput{Config: second, Revision: planned.out.Revision})
		three = apply("4", workflows.ApplyInput{Config: second})
	})
	w.at(3*time.Second, func() {
		if one.rejected != nil || one.err != nil {
			t.Errorf("as planned: %+v", one)
		}
		if two.rejected == nil || !strings.Contains(two.rejected.Error(), "plan it again") {
			t.Errorf("upon another one: %+v", two)
		}
		if three.rejected == nil || !strings.Contains(three.rejected.Error(), "is being applied") {
			t.Errorf("while another one is applied: %+v", three)
		}
		// What is in its way may be mended by another configuration.
		w.phase(workflows.Preparing, "SOURCE_BLOCKED")
		w.prepare = func(activities.PrepareInput) (activities.PrepareResult, error) {
			return prepared(activities.TableInfo{OID: 1, Name: "public.a", Phase: "live"}), nil
		}
		four = apply("5", workflows.ApplyInput{Config: second})
	})
	w.at(10*time.Second, func() {
		if four.rejected != nil || four.err != nil {
			t.Errorf("where something is in the way: %+v", four)
		}
		w.phase(workflows.Running, "")
		five = apply("6", workflows.ApplyInput{Config: less})
		w.signal(workflows.Apply, workflows.ApplyInput{Config: less})
	})
	w.at(11*time.Second, func() {
		if five.rejected == nil || !strings.Contains(five.rejected.Error(), "public.a would leave the mirror") {
			t.Errorf("without a yes: %+v", five)
		}
		requests := w.status().Requests
		if last := requests[len(requests)-1]; !strings.Contains(last.Outcome, "refused: public.a would leave") || w.table("public.a").Phase != workflows.Live {
			t.Errorf("without a yes, by signal: %+v", last)
		}
		w.remove()
	})
	w.run()
}

func TestTablesThatAreWrittenOtherwiseAreCopiedAgain(t *testing.T) {
	w := newWorld(t)
	started, _ := w.copies()
	cast := shop
	cast.Rules = []fleet.Rule{{Tables: []string{"public.a"}, Options: fleet.Options{Casts: map[string]string{"c": "string"}}}}
	before := 0
	w.at(time.Second, func() {
		before = len(*started)
		w.signal(workflows.Apply, workflows.ApplyInput{Config: cast})
	})
	w.at(time.Minute, func() {
		copied := 0
		for _, c := range (*started)[before:] {
			for _, table := range c.Tables {
				if table.Name == "public.a" {
					copied++
				}
			}
		}
		if copied == 0 {
			t.Errorf("not copied: %+v", *started)
		}
		w.remove()
	})
	w.run()
}

func TestWhatARemovalLeaves(t *testing.T) {
	for name, c := range map[string]struct {
		in            workflows.RemoveInput
		steps         string
		dropped, left int
	}{
		"all but topic and lake": {workflows.RemoveInput{}, "Drop", 1, 0},
		"with the slot":          {workflows.RemoveInput{KeepSlot: true}, "", 0, 3},
		"nothing":                {workflows.RemoveInput{Purge: true}, "Drop Purge", 3, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			register(w, "Purge", func(context.Context, activities.PurgeInput) (activities.PurgeResult, error) {
				return activities.PurgeResult{Deleted: []string{"lake l", "topic t"}}, nil
			})
			var removed *request[workflows.Removed]
			w.at(time.Second, func() { removed = ask[workflows.Removed](w, workflows.Remove, "1", c.in) })
			w.run()
			if removed.err != nil || len(removed.out.Dropped) != c.dropped || len(removed.out.Left) != c.left {
				t.Errorf("removed %+v, %v", removed.out, removed.err)
			}
			var steps []string
			for _, s := range w.steps {
				if s.name == "Drop" || s.name == "Purge" {
					steps = append(steps, s.name)
				}
			}
			if strings.Join(steps, " ") != c.steps {
				t.Errorf("steps %q", steps)
			}
		})
	}
	w := newWorld(t)
	w.drop = func(activities.DropInput) (activities.DropResult, error) {
		return activities.DropResult{}, retries("SOURCE_UNREACHABLE")
	}
	var both, other *request[workflows.Removed]
	w.at(time.Second, func() {
		both = ask[workflows.Removed](w, workflows.Remove, "1", workflows.RemoveInput{KeepSlot: true, Purge: true})
		w.signal(workflows.Remove, workflows.RemoveInput{Purge: true})
	})
	w.at(2*time.Second, func() {
		if both.rejected == nil {
			t.Error("a slot was to be kept and the lake purged")
		}
		other = ask[workflows.Removed](w, workflows.Remove, "2", workflows.RemoveInput{Force: true})
	})
	w.at(3*time.Second, func() {
		if other.rejected == nil || !strings.Contains(other.rejected.Error(), "already") {
			t.Errorf("another choice: %+v", other)
		}
		register(w, "Purge", func(context.Context, activities.PurgeInput) (activities.PurgeResult, error) {
			return activities.PurgeResult{}, nil
		})
		w.signal(workflows.Remove, workflows.RemoveInput{Purge: true, Force: true})
	})
	w.run()
}

func TestAPurgeThatCannotSucceedIsForced(t *testing.T) {
	w := newWorld(t)
	purges := 0
	register(w, "Purge", func(context.Context, activities.PurgeInput) (activities.PurgeResult, error) {
		if purges++; purges == 10 {
			return activities.PurgeResult{}, retries(activities.CodeWorkerLost)
		}
		return activities.PurgeResult{}, retries("LAKE_UNREACHABLE")
	})
	w.at(time.Second, func() { w.signal(workflows.Remove, workflows.RemoveInput{Purge: true}) })
	var removed *request[workflows.Removed]
	w.at(time.Minute, func() {
		w.phase(workflows.Removing, "LAKE_UNREACHABLE")
		if r := w.status().Reason; !strings.HasSuffix(r.Remedy, "\nmillrace remove shop --yes --purge --force") {
			t.Errorf("reason %+v", r)
		}
		purges = 9
		removed = ask[workflows.Removed](w, workflows.Remove, "1", workflows.RemoveInput{Purge: true, Force: true})
	})
	w.at(time.Hour, func() { w.env.CancelWorkflow() })
	w.run()
	want := []string{"lake file:///lake/shop", "topic millrace.shop", "topic millrace.shop.schemas"}
	if removed.err != nil || !slices.Equal(removed.out.Left, want) || purges < 11 {
		t.Errorf("answer %+v after %d purges", removed, purges)
	}
}

func TestADatabaseThatDoesNotRunIsForeseen(t *testing.T) {
	w := newWorld(t)
	w.previews(func(in activities.PreviewInput) (activities.PreviewResult, error) {
		if in.Running || len(in.Known) > 0 {
			t.Errorf("asked for %+v", in)
		}
		return activities.PreviewResult{
			Tables:   []activities.PreviewTable{{OID: 1, Name: "public.a", Copied: true, Rows: 3}},
			Problems: []activities.Problem{{Code: "WAL_LEVEL", Blocking: true}},
		}, nil
	})
	w.env.RegisterWorkflowWithOptions(workflows.Foresee, workflow.RegisterOptions{Name: workflows.PlanWorkflow})
	w.env.ExecuteWorkflow(workflows.PlanWorkflow, workflows.PlanInput{Config: shop})
	var p workflows.Planned
	if err := w.env.GetWorkflowResult(&p); err != nil {
		t.Fatal(err)
	}
	if p.Running || len(p.Problems) != 1 || len(p.Tables) != 1 || p.Tables[0].Act != workflows.AddTable || p.Tables[0].Rows != 3 {
		t.Errorf("planned %+v", p)
	}
}
