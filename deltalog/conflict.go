package deltalog

import "fmt"

// Conflict judges a plan that was made on c.Read against a newer version. c has
// been tried once. It returns an error wrapping ErrApplied where the progress of
// an application that c sets has been reached or passed, and else one wrapping
// ErrConflict where others changed
//
//   - the protocol or the metadata,
//   - the progress of an application, or a domain, that c sets, or one of
//     c.ReadApps,
//   - a file that c removes, or one of c.ReadFiles: it is gone or has another
//     vector,
//   - what c.Reads would have read: they added such a file as a change of the
//     data. Blind appends are exempt unless c has Metadata, or the table's
//     property delta.isolationLevel is Serializable; a c that only rearranges
//     rows is indifferent to what was added.
func (c *Commit) Conflict(now *Snapshot) error {
	for i := range c.Txns {
		if c.moved(now, c.Txns[i].AppID) {
			if err := now.applied(c.Txns[i : i+1]); err != nil {
				return err
			}
		}
	}
	switch {
	case now.metadata.ID != c.Read.metadata.ID:
		return fmt.Errorf("%w: another table has taken this one's place", ErrConflict)
	case !now.protocol.equal(c.Read.protocol):
		return fmt.Errorf("%w: the protocol has changed", ErrConflict)
	case !now.metadata.equal(c.Read.metadata):
		return fmt.Errorf("%w: the metadata has changed", ErrConflict)
	}
	for _, t := range c.Txns {
		if c.moved(now, t.AppID) {
			return fmt.Errorf("%w: transaction id of %s has moved", ErrConflict, t.AppID)
		}
	}
	for _, app := range c.ReadApps {
		if c.moved(now, app) {
			return fmt.Errorf("%w: transaction id of %s, which was read, has moved", ErrConflict, app)
		}
	}
	for _, d := range c.Domains {
		if now.domains[d.Name] != c.Read.domains[d.Name] {
			return fmt.Errorf("%w: domain %s has changed", ErrConflict, d.Name)
		}
	}
	for _, f := range c.Remove {
		if !now.Has(f) {
			return fmt.Errorf("%w: file %s is no longer what it was", ErrConflict, f.Path)
		}
	}
	for _, f := range c.ReadFiles {
		if !now.Has(f) {
			return fmt.Errorf("%w: file %s, which was read, is no longer what it was", ErrConflict, f.Path)
		}
	}
	if f := c.overlooked(now); f != nil {
		return fmt.Errorf("%w: file %s, which would have been read, was added", ErrConflict, f.Path)
	}
	return nil
}

// moved tells whether an application has come, since c.Read, to another version
// or to its first.
func (c *Commit) moved(now *Snapshot, app string) bool {
	was, had := c.Read.txns[app]
	is, has := now.txns[app]
	return had != has || was.Version != is.Version
}

// overlooked returns a file that others added and that the plan would have read,
// or nil.
func (c *Commit) overlooked(now *Snapshot) *File {
	if c.Reads == nil || c.Rearrange {
		return nil
	}
	if now.addedSince > c.Read.version {
		// Who added what is not known so far back.
		for f := range now.Files() {
			if len(c.Read.files.at(f.Path)) == 0 && c.Reads(f) {
				return f
			}
		}
		return nil
	}
	for a := now.added; a != nil && a.version > c.Read.version; a = a.before {
		if a.blind && c.Metadata == nil && c.Read.metadata.isolation() != isolationSerializable {
			continue
		}
		for _, f := range a.files {
			if c.Reads(f) {
				return f
			}
		}
	}
	return nil
}
