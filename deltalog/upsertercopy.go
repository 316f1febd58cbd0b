package deltalog

import (
	"bytes"
	"context"
	"encoding/binary"
	"maps"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
)

// copyHoles writes files anew without the rows that go. The index learns where
// the others went; so does that of another writer, which reads the commit.
func (b *Upsert) copyHoles(ctx context.Context, p *upsertPlan, holes []hole) error {
	var records []rewrite
	for _, h := range holes {
		s := b.reading() // files of this upsert are read in the columns that they have
		run, err := b.u.t.rewriteFiles(ctx, s, []*File{h.file}, rewriteOptions{
			hide: map[string]*roaring64.Bitmap{h.file.Path: h.rows}, uncommitted: b.own(h.id),
		})
		if err != nil {
			return err
		}
		p.runs = append(p.runs, run)
		to := run.outputs[0]
		if f := b.mine[h.id]; f != nil && f.lostIDs {
			to.rowTracking = nil
		}
		id := b.u.index.newFile()
		p.commit.Add = append(p.commit.Add, to)
		p.changed[id] = &indexFile{Path: to.Path, Rows: to.Rows}
		rec := rewrite{Inputs: []rewriteInput{{Path: h.file.Path, Rows: to.Rows}}, Outputs: []rewriteOutput{{to.Path, to.Rows}}}
		p.moves[h.id] = rec.moves([]*roaring64.Bitmap{h.rows}, []uint32{id})[0]
		if b.own(h.id) {
			p.garbage = append(p.garbage, h.file)
			continue
		}
		p.dropped = append(p.dropped, h.id)
		if rec.Inputs[0].Hidden = inlineVector(h.rows); rec.Inputs[0].Hidden != nil {
			records = append(records, rec)
		}
	}
	return p.tell(records)
}

// tell puts what was rewritten into the commit.
func (p *upsertPlan) tell(records []rewrite) error {
	if len(records) == 0 {
		return nil
	}
	text, err := encodeRewrites(records)
	if err != nil {
		return err
	}
	params := maps.Clone(p.commit.Params)
	if params == nil {
		params = map[string]string{}
	}
	params[rewriteParam] = text
	p.commit.Params = params
	return nil
}

// maxInline is how long a vector in a commit may be.
const maxInline = 16 << 10

// inlineVector returns a vector that holds its rows itself, or nil when they
// are too many.
func inlineVector(rows *roaring64.Bitmap) *Vector {
	rows.RunOptimize()
	if rows.GetSerializedSizeInBytes() > maxInline {
		return nil
	}
	buf := bytes.NewBuffer(binary.LittleEndian.AppendUint32(nil, vectorMagic))
	if _, err := rows.WriteTo(buf); err != nil {
		return nil
	}
	return &Vector{
		StorageType: "i", PathOrInline: encodeZ85(buf.Bytes()),
		SizeInBytes: int32(buf.Len()), Cardinality: int64(rows.GetCardinality()),
	}
}
