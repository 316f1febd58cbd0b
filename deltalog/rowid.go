package deltalog

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/google/uuid"
)

const (
	// rowIDDomain holds the highest id that was given to a row.
	rowIDDomain = "delta.rowTracking"
	// propertyRowIDsSuspended has no ids given for the time being.
	propertyRowIDsSuspended = "delta.rowTrackingSuspended"
	// Columns under these names, in data files alone, have the ids of rows that
	// were moved, and the versions that wrote them.
	propertyRowIDColumn     = "delta.rowTracking.materializedRowIdColumnName"
	propertyRowCommitColumn = "delta.rowTracking.materializedRowCommitVersionColumnName"
	// tagRowIDsKept says of a commit whether the rows that it moved or updated have
	// their ids still.
	tagRowIDsKept = "delta.rowTracking.preserved"
)

// rowIDMark is the configuration of rowIDDomain.
type rowIDMark struct {
	HighWaterMark int64 `json:"rowIdHighWaterMark"`
}

// planRowIDs gives ids to the rows of files that are added, where the table
// tracks rows. A file that stays but for its vector keeps those that it has. The
// files of c are not touched, so that the next attempt gives others.
func (p *planned) planRowIDs(read *Snapshot, c *Commit, log *commitLog) error {
	if !p.protocol.HasFeature(FeatureRowTracking) || p.metadata.enabled(propertyRowIDsSuspended) {
		return nil
	}
	if !p.protocol.HasFeature(FeatureDomainMetadata) {
		return fmt.Errorf("%w: feature %s without %s", ErrUnsupported, FeatureRowTracking, FeatureDomainMetadata)
	}
	if err := p.switchRowIDsOn(read, log); err != nil {
		return err
	}
	mark := rowIDMark{-1}
	if d, ok := read.domains[rowIDDomain]; ok {
		if err := json.Unmarshal([]byte(d.Configuration), &mark); err != nil {
			return fmt.Errorf("domain %s: %w: %w", rowIDDomain, ErrCorrupt, err)
		}
	}
	was := mark
	stay := map[string]rowTracking{}
	for _, f := range c.Remove {
		stay[f.Path] = f.tracking()
	}
	log.adds = slices.Clone(log.adds)
	kept := true
	for i, f := range log.adds {
		ids, stays := stay[f.Path]
		kept = kept && (stays || f.tracking().keeps || len(c.Remove) == 0)
		if !stays && !f.tracking().keeps && c.Rearrange && p.metadata.enabled(PropertyRowTracking) {
			return fmt.Errorf("%w: feature %s: rows that move to another file would lose their ids", ErrUnsupported, FeatureRowTracking)
		}
		n := *f
		if ids.BaseRowID == nil {
			if f.Rows < 0 {
				return fmt.Errorf("%w: file %s: feature %s needs the number of rows", ErrInvalid, f.Path, FeatureRowTracking)
			}
			first, version := mark.HighWaterMark+1, int64(read.version+1)
			ids.BaseRowID, ids.DefaultRowCommitVersion = &first, &version
			mark.HighWaterMark += f.Rows
		}
		ids.ClusteringProvider = f.tracking().ClusteringProvider
		n.rowTracking = &ids
		log.adds[i] = &n
	}
	if c.Rearrange {
		log.rearranged = log.adds
	}
	if p.metadata.enabled(PropertyRowTracking) {
		log.info.Tags = map[string]string{tagRowIDsKept: strconv.FormatBool(kept)}
	}
	if mark == was {
		return nil
	}
	text, err := json.Marshal(mark)
	if err != nil {
		return fmt.Errorf("domain %s: %w", rowIDDomain, err)
	}
	log.domains = append(slices.Clone(log.domains), Domain{Name: rowIDDomain, Configuration: string(text)})
	return nil
}

// switchRowIDsOn names the columns for rows that move, when the property is set.
// Rows that are there already must have ids.
func (p *planned) switchRowIDsOn(read *Snapshot, log *commitLog) error {
	if !p.metadata.enabled(PropertyRowTracking) || read.version >= 0 && read.metadata.enabled(PropertyRowTracking) {
		return nil
	}
	for f := range read.Files() {
		if f.tracking().BaseRowID == nil {
			return fmt.Errorf("%w: feature %s for a table that has rows without ids", ErrUnsupported, FeatureRowTracking)
		}
	}
	m := p.metadata.Clone()
	for key, prefix := range map[string]string{propertyRowIDColumn: "_row-id-col-", propertyRowCommitColumn: "_row-commit-version-col-"} {
		if m.Configuration[key] == "" {
			m.Configuration[key] = prefix + uuid.NewString()
		}
	}
	p.metadata, log.metadata = m, m
	return nil
}
