package deltalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/millrace-io/millrace/deltalog/store"
)

// Commit is what a new version of a table changes. All of it becomes visible at
// once, or nothing does.
type Commit struct {
	// Read is the version that the commit was planned on; it becomes the
	// version after. Nil means [Table.Snapshot], which the attempt sets.
	Read *Snapshot
	// Operation names what is done, such as WRITE, for people to read. Params
	// and Metrics tell more about it; nil means nothing.
	Operation string
	Params    map[string]string
	Metrics   map[string]string
	// Protocol and Metadata replace those of the table; nil keeps them. Start
	// from the table's own: see [Metadata.Clone], [Protocol.With] and
	// [Protocol.For].
	Protocol *Protocol
	Metadata *Metadata
	// Txns and Domains are set besides what else is in the table.
	Txns    []Txn
	Domains []Domain
	// Remove takes files of Read away: path and vector must be theirs. Add
	// puts files in; to change a file's vector, remove it and add
	// [File.WithVector].
	Remove []*File
	Add    []*File
	// ChangeData are files of changed rows, made by [Table.NewChangeFile], for
	// tables with a change data feed. A commit that has any tells all its
	// changes by them.
	ChangeData []*File
	// ReadFiles are files of Read whose rows the plan depends on, Reads tells
	// which files it would have depended on had they been there, and ReadApps
	// are applications whose progress it depends on. See [Commit.Conflict].
	ReadFiles []*File
	Reads     func(*File) bool
	ReadApps  []string
	// BlindAppend says that the plan does not depend on any file of the table.
	BlindAppend bool
	// Rearrange says that the rows of the table stay the same, so that those
	// who follow its changes pass over this one. The zero value is a change.
	Rearrange bool
}

// Commit tries to write the version after c.Read. Unless another writer holds
// that version, won is true and the snapshot is the new version. Otherwise the
// snapshot is the newest known: the caller refreshes, judges (see
// [Commit.Conflict]) and tries again.
//
// An error that wraps ErrInvalid or ErrUnsupported says that nothing was tried;
// one that wraps ErrUncertain that the outcome could not be found out. Where the
// store refused the write, it wraps [store.ErrPermission],
// [store.ErrUnconditional], [store.ErrName] or, as on a disk that is full,
// [store.ErrNotWritten].
func (t *Table) Commit(ctx context.Context, c *Commit) (snap *Snapshot, won bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.Read == nil {
		c.Read = t.snap.Load()
	}
	read := c.Read
	version := read.version + 1
	if read.version >= 0 && t.stale(t.now()) {
		if err := t.rediscover(ctx); err != nil {
			return nil, false, fmt.Errorf("commit version %d: %w", version, err)
		}
	}
	if known := t.snap.Load(); known.version > read.version {
		return known, false, nil
	}
	log, err := t.plan(ctx, read, c)
	if err != nil {
		return nil, false, fmt.Errorf("commit version %d: %w", version, err)
	}
	body, err := log.encode(!c.Rearrange)
	if err != nil {
		return nil, false, fmt.Errorf("commit version %d: %w", version, err)
	}
	next, err := read.apply(log, int64(len(body)))
	if err != nil {
		return nil, false, fmt.Errorf("commit: %w: %w", ErrInvalid, err)
	}
	at := t.now()
	won, err = t.putCommit(ctx, version, body, log.info.TxnID)
	if err != nil {
		return nil, false, fmt.Errorf("commit version %d: %w", version, err)
	}
	if !won {
		return t.snap.Load(), false, nil
	}
	if read.version >= 0 && t.stale(t.now()) {
		if err := t.checkFollows(ctx, version); err != nil {
			return nil, false, fmt.Errorf("commit version %d: %w", version, err)
		}
	}
	t.headAt = at
	return t.publish(next), true, nil
}

// CommitAppend commits a blind append however many others commit meanwhile. It
// returns ErrApplied where an application whose progress c sets has come as far
// already, and ErrConflict when one of them changed what c rests on, as
// [Commit.Conflict] tells. Before every attempt after a lost one, check judges
// the newest version, and its error ends the attempts as it is; nil means no
// check beyond that. CommitAppend sets c.Read.
func (t *Table) CommitAppend(ctx context.Context, c *Commit, check func(*Snapshot) error) (*Snapshot, error) {
	if len(c.Remove) > 0 {
		return nil, fmt.Errorf("append: %w: it removes files", ErrInvalid)
	}
	c.BlindAppend = true
	if c.Read == nil {
		c.Read = t.Snapshot()
	}
	if err := c.Read.applied(c.Txns); err != nil {
		return nil, fmt.Errorf("append: %w", err)
	}
	for {
		snap, won, err := t.Commit(ctx, c)
		if err != nil || won {
			return snap, err
		}
		if snap, err = t.Refresh(ctx); err != nil {
			return nil, err
		}
		if check != nil {
			if err := check(snap); err != nil {
				return nil, err
			}
		}
		if err := c.Conflict(snap); err != nil {
			return nil, err
		}
		c.Read = snap
	}
}

// applied returns ErrApplied where an application has come as far already as
// one of txns would have it.
func (s *Snapshot) applied(txns []Txn) error {
	for _, x := range txns {
		if was, ok := s.txns[x.AppID]; ok && was.Version >= x.Version {
			return fmt.Errorf("%w: %s has come to %d, this is %d", ErrApplied, x.AppID, was.Version, x.Version)
		}
	}
	return nil
}

// equal tells whether two protocols ask for the same.
func (p *Protocol) equal(o *Protocol) bool {
	return p == o || p.MinReader == o.MinReader && p.MinWriter == o.MinWriter &&
		slices.Equal(p.ReaderFeatures, o.ReaderFeatures) && slices.Equal(p.WriterFeatures, o.WriterFeatures)
}

// equal tells whether two metadata say the same.
func (m *Metadata) equal(o *Metadata) bool {
	return m == o || m.ID == o.ID && m.Name == o.Name && m.Description == o.Description && m.Schema.Equal(o.Schema) &&
		slices.Equal(m.PartitionColumns, o.PartitionColumns) && maps.Equal(m.Configuration, o.Configuration)
}

// plan turns a commit into its actions and checks them. Errors wrap ErrInvalid
// or ErrUnsupported.
func (t *Table) plan(ctx context.Context, read *Snapshot, c *Commit) (*commitLog, error) {
	now := t.now().UnixMilli()
	log := &commitLog{
		info: &CommitInfo{
			Timestamp: now, Operation: c.Operation, Parameters: c.Params, Metrics: c.Metrics,
			IsolationLevel: read.metadata.isolation(), BlindAppend: c.BlindAppend,
			Engine: engineName, TxnID: uuid.NewString(),
		},
		protocol: c.Protocol, metadata: c.Metadata,
		domains: c.Domains, txns: slices.Clone(c.Txns), adds: c.Add, changes: c.ChangeData,
	}
	if c.Rearrange {
		log.rearranged = c.Add
	}
	if log.info.Parameters == nil {
		log.info.Parameters = map[string]string{}
	}
	if read.version >= 0 {
		log.info.ReadVersion = &read.version
	}
	for i := range log.txns {
		if log.txns[i].LastUpdated == 0 {
			log.txns[i].LastUpdated = now
		}
	}
	for _, f := range c.Remove {
		log.removes = append(log.removes, tombstone{file: f, deleted: now, dataChange: !c.Rearrange})
	}
	after := planned{protocol: read.protocol, metadata: read.metadata}
	if c.Protocol != nil {
		after.protocol = c.Protocol
	}
	if c.Metadata != nil {
		after.metadata = c.Metadata
	}
	var err error
	if after.clustered, err = read.clusteringColumns(); err != nil {
		return nil, err
	}
	if err := after.check(read, c); err != nil {
		return nil, err
	}
	if err := t.planTime(ctx, read, &after, log); err != nil {
		return nil, err
	}
	if err := after.planRowIDs(read, c, log); err != nil {
		return nil, err
	}
	return log, log.checkText()
}

// planTime gives the commit its in-commit timestamp, where the table has them.
func (t *Table) planTime(ctx context.Context, read *Snapshot, after *planned, log *commitLog) error {
	if !after.metadata.enabled(PropertyInCommitTimestamps) {
		return nil
	}
	last := int64(0)
	switch {
	case read.version < 0:
	case !read.inCommitTimestamps():
		var err error
		if last, err = read.lastTime(ctx); err != nil {
			return err
		}
	case read.info == nil || read.info.InCommitTimestamp == 0:
		return fmt.Errorf("%w: the in-commit timestamp of version %d is not known", ErrUnsupported, read.version)
	default:
		last = read.info.InCommitTimestamp
	}
	log.info.InCommitTimestamp = max(log.info.Timestamp, last+1)
	if read.version >= 0 && !read.inCommitTimestamps() {
		after.metadata = after.metadata.withInCommitTime(read.version+1, log.info.InCommitTimestamp)
		log.metadata = after.metadata
	}
	return nil
}

// planned is what a table will be after a commit.
type planned struct {
	protocol *Protocol
	metadata *Metadata
	// clustered are the paths of the columns that files are clustered by.
	clustered [][]string
}

func (p *planned) check(read *Snapshot, c *Commit) error {
	first := read.version < 0
	if !first {
		if err := checkWrite(read.protocol, read.metadata); err != nil {
			return err
		}
	}
	if first || c.Protocol != nil || c.Metadata != nil {
		if err := p.checkTable(read, c, first); err != nil {
			return err
		}
	}
	if err := p.checkNames(c); err != nil {
		return err
	}
	return p.checkFiles(read, c)
}

// checkTable checks protocol and metadata: what they say of each other, and
// what they were.
func (p *planned) checkTable(read *Snapshot, c *Commit, first bool) error {
	if err := p.protocol.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := checkRead(p.protocol, p.metadata); err != nil {
		return err
	}
	if err := checkWrite(p.protocol, p.metadata); err != nil {
		return err
	}
	if err := p.metadata.Schema.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	for _, name := range neededFeatures(p.metadata) {
		if !p.protocol.has(name) {
			return fmt.Errorf("%w: the protocol lacks feature %s, which schema or properties need", ErrInvalid, name)
		}
	}
	if err := checkProperties(read.metadata.Configuration, p.metadata.Configuration, first); err != nil {
		return err
	}
	if err := p.checkPartitions(first); err != nil {
		return err
	}
	if err := p.checkMapping(read, first); err != nil {
		return err
	}
	if err := p.checkFeatures(read, first); err != nil || first {
		return err
	}
	if p.metadata.ID != read.metadata.ID {
		return fmt.Errorf("%w: the table's id has changed", ErrInvalid)
	}
	if !slices.Equal(p.metadata.PartitionColumns, read.metadata.PartitionColumns) {
		return fmt.Errorf("%w: the partition columns have changed", ErrInvalid)
	}
	if len(c.Remove) < read.NumFiles() {
		if err := checkColumns(read, p.metadata); err != nil {
			return err
		}
	}
	if p.protocol.MinReader < read.protocol.MinReader || p.protocol.MinWriter < read.protocol.MinWriter {
		return fmt.Errorf("%w: the protocol goes back to older versions", ErrInvalid)
	}
	// Some readers ignore the vectors of a table whose property is off.
	if read.metadata.enabled(PropertyDeletionVectors) && !p.metadata.enabled(PropertyDeletionVectors) {
		return fmt.Errorf("%w: deletion vectors cannot be switched off", ErrInvalid)
	}
	if read.metadata.enabled(PropertyInCommitTimestamps) && !p.metadata.enabled(PropertyInCommitTimestamps) {
		return fmt.Errorf("%w: in-commit timestamps cannot be switched off", ErrUnsupported)
	}
	return nil
}

// checkFeatures checks that the protocol lists features for all who must know
// them, and keeps those that it had.
func (p *planned) checkFeatures(read *Snapshot, first bool) error {
	readers := p.protocol.readerFeatures()
	if p.protocol.MinWriter >= 7 {
		for _, name := range p.protocol.WriterFeatures {
			if f := lookUp(name); f != nil && f.reader && !slices.Contains(readers, name) {
				return fmt.Errorf("%w: feature %s is listed for writers alone", ErrInvalid, name)
			}
		}
	}
	if first {
		return nil
	}
	for _, name := range read.protocol.writerFeatures() {
		if !p.protocol.HasFeature(name) {
			return fmt.Errorf("%w: feature %s is taken out of the protocol", ErrInvalid, name)
		}
	}
	for _, name := range read.protocol.readerFeatures() {
		if !slices.Contains(readers, name) {
			return fmt.Errorf("%w: feature %s is taken out of the protocol for readers", ErrInvalid, name)
		}
	}
	return nil
}

// checkPartitions checks the partition columns against the schema.
func (p *planned) checkPartitions(first bool) error {
	columns, s := p.metadata.PartitionColumns, p.metadata.Schema
	for i, name := range columns {
		at := s.Field(name)
		switch {
		case at < 0:
			return fmt.Errorf("%w: partition column %s is not in the schema", ErrInvalid, name)
		case slices.Contains(columns[:i], name):
			return fmt.Errorf("%w: partition column %s is there twice", ErrInvalid, name)
		case !s.Fields[at].Type.Kind.Primitive():
			return fmt.Errorf("%w: partition column %s is of type %s", ErrInvalid, name, s.Fields[at].Type)
		}
	}
	if first && len(columns) > 0 && len(columns) == len(s.Fields) {
		return fmt.Errorf("%w: all columns are partition columns: data files would have none", ErrInvalid)
	}
	return nil
}

// checkNames checks transactions and domains.
func (p *planned) checkNames(c *Commit) error {
	apps := map[string]bool{}
	for _, t := range c.Txns {
		if t.AppID == "" || apps[t.AppID] {
			return fmt.Errorf("%w: transaction id %q is empty or there twice", ErrInvalid, t.AppID)
		}
		apps[t.AppID] = true
	}
	domains := map[string]bool{}
	for _, d := range c.Domains {
		switch {
		case d.Name == "" || domains[d.Name]:
			return fmt.Errorf("%w: domain %q is empty or there twice", ErrInvalid, d.Name)
		case strings.HasPrefix(d.Name, "delta."):
			return fmt.Errorf("%w: domain %s belongs to the protocol", ErrInvalid, d.Name)
		}
		domains[d.Name] = true
	}
	if len(c.Domains) > 0 && !p.protocol.has(FeatureDomainMetadata) {
		return fmt.Errorf("%w: the protocol lacks feature %s", ErrInvalid, FeatureDomainMetadata)
	}
	return nil
}

// checkFiles checks what is removed and added.
func (p *planned) checkFiles(read *Snapshot, c *Commit) error {
	if len(c.Remove) > 0 && !c.Rearrange && p.metadata.enabled(PropertyAppendOnly) {
		return fmt.Errorf("%w: rows of an append-only table stay", ErrInvalid)
	}
	if c.BlindAppend && len(c.Remove) > 0 {
		return fmt.Errorf("%w: a blind append removes files", ErrInvalid)
	}
	if c.BlindAppend && (len(c.ReadFiles) > 0 || c.Reads != nil) {
		return fmt.Errorf("%w: a blind append depends on files", ErrInvalid)
	}
	if err := p.checkChangeData(c); err != nil {
		return err
	}
	removed := make(map[string]bool, len(c.Remove))
	for _, f := range c.Remove {
		if removed[f.Path] {
			return fmt.Errorf("%w: file %s is removed twice", ErrInvalid, f.Path)
		}
		removed[f.Path] = true
		if !read.Has(f) {
			return fmt.Errorf("%w: file %s is not in version %d with that vector", ErrInvalid, f.Path, read.version)
		}
	}
	added := make(map[string]bool, len(c.Add))
	for _, f := range c.Add {
		if added[f.Path] {
			return fmt.Errorf("%w: file %s is added twice", ErrInvalid, f.Path)
		}
		added[f.Path] = true
		if !removed[f.Path] && read.File(f.Path) != nil {
			return fmt.Errorf("%w: file %s is in version %d already", ErrInvalid, f.Path, read.version)
		}
		if err := p.checkAdd(f); err != nil {
			return fmt.Errorf("%w: file %s: %w", ErrInvalid, f.Path, err)
		}
	}
	return nil
}

func (p *planned) checkAdd(f *File) error {
	if _, err := f.Name(); err != nil {
		return err
	}
	if f.Path == "" || f.Size <= 0 {
		return errors.New("it has no path or no size")
	}
	if len(f.Partition) != len(p.metadata.PartitionColumns) {
		return errors.New("it lacks values of partition columns, or has too many")
	}
	mapping, err := mappingOf(p.protocol, p.metadata)
	if err != nil {
		return err
	}
	for _, name := range p.metadata.PartitionColumns {
		stored, err := storedName(p.metadata.Schema, mapping, name)
		if err != nil {
			return err
		}
		if _, ok := f.Partition[stored]; !ok {
			return fmt.Errorf("it lacks the value of partition column %s", name)
		}
	}
	if err := p.checkClustering(f); err != nil {
		return err
	}
	if f.Vector == nil {
		return nil
	}
	if !p.protocol.has(FeatureDeletionVectors) || !p.metadata.enabled(PropertyDeletionVectors) {
		return errors.New("the table does not allow deletion vectors")
	}
	if f.Rows < 0 || f.Rows < f.Vector.Cardinality {
		return errors.New("its deletion vector needs the number of rows, and no fewer than it hides")
	}
	return nil
}

// checkFollows looks whether a version that was just written follows the one
// before. A process that was stopped on its way may have written a version that
// others had written, and had cleaned away with those before it.
func (t *Table) checkFollows(ctx context.Context, v Version) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	l, err := listLog(ctx, t.st, v-1)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrUncertain, err)
	case l.first != v-1 && l.newest() > v:
		return fmt.Errorf("%w: it took so long that the log around it was cleaned away", ErrUncertain)
	}
	return nil
}

// Attempts to find out what became of a commit, and the pauses between them, of
// which each is longer than the one before.
const (
	settleAttempts = 8
	settlePause    = 2 * time.Millisecond
	settleFactor   = 3
	settleTimeout  = 30 * time.Second
)

// putCommit writes the file of a version and tells whether it is ours. A reply
// that was lost, or a retry below us, makes our own file look like another
// writer's: the id in it decides. The same bytes may be sent again, since
// whichever attempt lands is the same commit.
func (t *Table) putCommit(ctx context.Context, v Version, body []byte, txnID string) (won bool, err error) {
	name := commitName(v)
	if err := ctx.Err(); err != nil {
		return false, err
	}
	err = t.st.PutIfAbsent(ctx, name, body)
	if err == nil || refusedByStore(err) {
		return err == nil, err
	}
	// Once something was sent, the answer is wanted even if the caller has
	// given up.
	settle, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	first, taken := err, errors.Is(err, store.ErrExist)
	pause := t.pause
	for range settleAttempts {
		b, err := t.st.Get(settle, name)
		gone := errors.Is(err, store.ErrNotExist)
		switch {
		case err == nil:
			return isCommit(b, txnID), nil
		case gone && taken:
			// It was there and has been cleaned away: the head is far ahead.
			return false, nil
		case gone && ctx.Err() != nil:
			return false, fmt.Errorf("%w: %w", ErrUncertain, first)
		case gone:
			err := t.st.PutIfAbsent(ctx, name, body)
			if err == nil {
				return true, nil
			}
			taken = errors.Is(err, store.ErrExist)
		}
		select {
		case <-time.After(pause):
			pause *= settleFactor
		case <-settle.Done():
		}
	}
	return false, fmt.Errorf("%w: %w", ErrUncertain, first)
}

// refusedByStore tells whether a store's error says that a write had no effect: it
// would have none the next time either, or its object was never there.
func refusedByStore(err error) bool {
	return errors.Is(err, store.ErrNotWritten) || errors.Is(err, store.ErrPermission) || errors.Is(err, store.ErrUnconditional) || errors.Is(err, store.ErrName)
}

// isCommit tells whether a commit's file carries an id. A file that cannot be
// read is another's: ours can.
func isCommit(b []byte, txnID string) bool {
	line, _, _ := strings.Cut(string(b), "\n")
	var a actionJSON
	return json.Unmarshal([]byte(line), &a) == nil && a.CommitInfo != nil && a.CommitInfo.TxnID == txnID
}
