package deltalog

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/millrace-io/millrace/deltalog/store"
)

// sidecarRows is the number of files, live and removed, that a sidecar lists at
// most.
const sidecarRows = 100_000

// The rows of a checkpoint whose files are in sidecars, and of those. The first
// have no files, but the columns: some readers look for them.
type (
	topRow struct {
		Txn      *checkpointTxn      `parquet:"txn,optional"`
		Add      *checkpointAdd      `parquet:"add,optional"`
		Remove   *checkpointRemove   `parquet:"remove,optional"`
		Metadata *checkpointMetadata `parquet:"metaData,optional"`
		Protocol *checkpointProtocol `parquet:"protocol,optional"`
		Domain   *checkpointDomain   `parquet:"domainMetadata,optional"`
		Self     *checkpointSelf     `parquet:"checkpointMetadata,optional"`
		Sidecar  *checkpointSidecar  `parquet:"sidecar,optional"`
	}
	checkpointSelf struct {
		Version int64             `parquet:"version"`
		Tags    map[string]string `parquet:"tags,optional"`
	}
	checkpointSidecar struct {
		Path        string            `parquet:"path"`
		SizeInBytes int64             `parquet:"sizeInBytes"`
		ModTime     int64             `parquet:"modificationTime"`
		Tags        map[string]string `parquet:"tags,optional"`
	}
	sidecarRow struct {
		Add    *checkpointAdd    `parquet:"add,optional"`
		Remove *checkpointRemove `parquet:"remove,optional"`
	}
)

// sidecarName returns the name of a sidecar. It is always in the log's own
// folder of them, so that no path leads elsewhere; one that names a folder names
// that one.
func sidecarName(path string) (string, error) {
	name, err := url.PathUnescape(path)
	if err != nil {
		return "", fmt.Errorf("sidecar %q: %w: %w", path, ErrCorrupt, err)
	}
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		if !strings.HasSuffix("/"+name[:i+1], "/"+sidecarDir) {
			return "", fmt.Errorf("sidecar %q: %w: it is not in %s", path, ErrCorrupt, sidecarDir)
		}
		name = name[i+1:]
	}
	name = sidecarDir + name
	if err := store.CheckName(name); err != nil {
		return "", fmt.Errorf("sidecar %q: %w: %w", path, ErrCorrupt, err)
	}
	return name, nil
}

// readJSONPart reads a checkpoint that is written as JSON.
func readJSONPart(ctx context.Context, st store.Store, name string, kinds []string, yield func(*actionJSON) error) error {
	r, size, err := st.OpenRange(ctx, name)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	in := bufio.NewReaderSize(io.NewSectionReader(r, 0, size), 64<<10)
	var long []byte // the beginning of a line that the buffer does not hold
	for n := 1; ; n++ {
		line, err := in.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) {
			long = append(long, line...)
			line, err = in.ReadSlice('\n')
		}
		if err != nil && err != io.EOF {
			return err
		}
		if len(long) > 0 {
			long = append(long, line...)
			line = long
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			a, err := parseAction(line)
			if err == nil && slices.Contains(kinds, a.kind()) {
				err = yield(a)
			}
			if err != nil {
				return fmt.Errorf("line %d: %w", n, err)
			}
		}
		long = long[:0]
		if err == io.EOF {
			return ctx.Err()
		}
	}
}

// kind names the action; empty means one that is not known.
func (a *actionJSON) kind() string {
	switch {
	case a.CommitInfo != nil:
		return "commitInfo"
	case a.Protocol != nil:
		return "protocol"
	case a.Metadata != nil:
		return "metaData"
	case a.Domain != nil:
		return "domainMetadata"
	case a.Txn != nil:
		return "txn"
	case a.Remove != nil:
		return "remove"
	case a.Add != nil:
		return "add"
	case a.Sidecar != nil:
		return "sidecar"
	}
	return ""
}

// writeV2Checkpoint writes a checkpoint whose files are in sidecars. The top file
// comes last: without it, sidecars are no part of the table.
func (t *Table) writeV2Checkpoint(ctx context.Context, s *Snapshot) (hintJSON, error) {
	h := hintJSON{Version: s.version, NumAdds: int64(s.NumFiles())}
	c := checkpointRef{version: s.version, unique: uuid.NewString() + ".parquet"}
	form := newStatsForm(s.metadata)
	top, err := createActions[topRow](ctx, t.st, c.names()[0], form)
	if err != nil {
		return h, err
	}
	defer top.out.Abort()
	if err := top.write(topRow{Self: &checkpointSelf{Version: int64(s.version)}}); err != nil {
		return h, err
	}
	files := sidecarWriter{ctx: ctx, t: t, form: form}
	defer files.abort()
	err = t.streamActions(ctx, s, &checkpointWriter{put: func(r checkpointRow) error {
		if r.Add != nil || r.Remove != nil {
			return files.write(sidecarRow{r.Add, r.Remove})
		}
		return top.write(topRow{Txn: r.Txn, Metadata: r.Metadata, Protocol: r.Protocol, Domain: r.Domain})
	}})
	if err != nil {
		return h, err
	}
	if err := files.end(); err != nil {
		return h, err
	}
	for i := range files.done {
		if err := top.write(topRow{Sidecar: &files.done[i]}); err != nil {
			return h, err
		}
		h.SizeInBytes += files.done[i].SizeInBytes
	}
	rows, bytes, err := top.close(ctx, t.st)
	if err != nil {
		return h, err
	}
	h.Size, h.SizeInBytes = rows+files.rows, h.SizeInBytes+bytes
	h.V2 = &hintV2{Path: strings.TrimPrefix(top.name, logDir), SizeInBytes: bytes, ModTime: t.now().UnixMilli()}
	return h, nil
}

// sidecarWriter spreads rows over sidecars.
type sidecarWriter struct {
	ctx  context.Context
	t    *Table
	form statsForm
	at   *actionFile[sidecarRow] // nil means none is begun
	rows int64
	done []checkpointSidecar
}

func (w *sidecarWriter) write(r sidecarRow) error {
	if w.at != nil && w.at.rows >= sidecarRows {
		if err := w.end(); err != nil {
			return err
		}
	}
	if w.at == nil {
		f, err := createActions[sidecarRow](w.ctx, w.t.st, sidecarDir+uuid.NewString()+".parquet", w.form)
		if err != nil {
			return err
		}
		w.at = f
	}
	w.rows++
	return w.at.write(r)
}

// end makes the sidecar that is begun visible.
func (w *sidecarWriter) end() error {
	if w.at == nil {
		return nil
	}
	_, bytes, err := w.at.close(w.ctx, w.t.st)
	if err != nil {
		return err
	}
	w.done = append(w.done, checkpointSidecar{
		Path: strings.TrimPrefix(w.at.name, sidecarDir), SizeInBytes: bytes, ModTime: w.t.now().UnixMilli(),
	})
	w.at = nil
	return nil
}

func (w *sidecarWriter) abort() {
	if w.at != nil {
		w.at.out.Abort()
	}
}
