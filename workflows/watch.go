package workflows

import (
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/millrace-io/millrace/activities"
)

// watchEvery is how often the slot is looked at that nobody reads.
const watchEvery = time.Minute

// unread tells that there is a slot, and that nobody reads it.
func (d *database) unread() bool {
	if d.s.Epoch == 0 || d.s.NewEpoch != nil {
		return false
	}
	return d.s.Phase == Parked || d.s.Phase == Paused && !d.wants(capturing)
}

// unwatched forgets what was seen of a slot that is read again, or is given up.
// A run that began before there was a watch has none.
func (d *database) unwatched(ctx workflow.Context) {
	switch {
	case !d.unread():
		d.s.WAL = nil
	case !d.watches:
		d.watches = workflow.GetVersion(ctx, "watch", workflow.DefaultVersion, 1) == 1
	}
}

// watch looks at a slot that nobody reads: at once, then every while. One that
// cannot be read any more parks a database that is paused.
func (d *database) watch(ctx workflow.Context) (queue string, err error) {
	queue = d.queue(LaneControl)
	if d.s.WAL != nil || d.s.Trouble[names[watching]] != nil {
		if err := workflow.Sleep(ctx, watchEvery); err != nil {
			return queue, err
		}
	}
	var out activities.WAL
	err = workflow.ExecuteActivity(d.options(ctx, queue, fetchWithin, shortStep), steps.Watch, activities.WatchInput{
		DB: d.s.Config, Epoch: d.s.Epoch, SystemID: d.s.SystemID, Timeline: d.s.Timeline, Before: d.s.WAL,
	}).Get(ctx, &out)
	if d.s.WAL = nil; err == nil {
		d.s.WAL = &out
	}
	d.touch()
	return queue, err
}
