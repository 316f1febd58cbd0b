package deltalog

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/deltalog/store"
)

// hintJSON is the file that points at the newest checkpoint. It is a hint:
// missing, stale or damaged, it costs a longer listing.
type hintJSON struct {
	Version     Version `json:"version"`
	Size        int64   `json:"size"`
	Parts       int     `json:"parts,omitempty"`
	SizeInBytes int64   `json:"sizeInBytes,omitempty"`
	NumAdds     int64   `json:"numOfAddFiles,omitempty"`
	V2          *hintV2 `json:"v2Checkpoint,omitempty"`
	Checksum    string  `json:"checksum,omitempty"`
}

// hintV2 tells more of a checkpoint with sidecars.
type hintV2 struct {
	Path        string `json:"path"` // the name of its file
	SizeInBytes int64  `json:"sizeInBytes"`
	ModTime     int64  `json:"modificationTime"` // in milliseconds since 1970
}

// ref returns the checkpoint that the hint names.
func (h hintJSON) ref() checkpointRef {
	c := checkpointRef{version: h.Version, parts: h.Parts, bytes: h.SizeInBytes}
	if h.V2 == nil {
		return c
	}
	if f, ok := parseLogName(logDir + h.V2.Path); ok && f.version == h.Version {
		c.unique = f.unique
	}
	return c
}

// hintOf makes the hint of a checkpoint that is there.
func hintOf(ctx context.Context, st store.Store, c checkpointRef) (hintJSON, error) {
	h := hintJSON{Version: c.version, Parts: c.parts}
	var sidecars []string
	for _, name := range c.names() {
		err := readPart(ctx, st, name, []string{"sidecar"}, func(a *actionJSON) error {
			name, err := sidecarName(a.Sidecar.Path)
			sidecars = append(sidecars, name)
			return err
		})
		if err != nil {
			return h, err
		}
	}
	for _, name := range append(c.names(), sidecars...) {
		rows, bytes, err := checkpointSize(ctx, st, name)
		if err != nil {
			return h, err
		}
		h.Size, h.SizeInBytes = h.Size+rows, h.SizeInBytes+bytes
	}
	if c.unique == "" {
		return h, nil
	}
	for info, err := range st.List(ctx, c.names()[0], "") {
		if err != nil {
			return h, err
		}
		h.V2 = &hintV2{Path: strings.TrimPrefix(info.Name, logDir), SizeInBytes: info.Size, ModTime: info.ModTime.UnixMilli()}
		break
	}
	return h, nil
}

// readHint returns the version that the hint names, if it can be had.
func readHint(ctx context.Context, st store.Store) (Version, bool) {
	b, err := st.Get(ctx, hintName)
	if err != nil {
		return 0, false
	}
	h, ok := parseHint(b)
	return h.Version, ok
}

// maxParts is the most parts of a checkpoint that a hint is believed to know of.
const maxParts = 1 << 16

func parseHint(b []byte) (hintJSON, bool) {
	h := hintJSON{Version: -1}
	if json.Unmarshal(b, &h) != nil || h.Version < 0 || h.Parts < 0 || h.Parts > maxParts {
		return h, false
	}
	if h.Checksum == "" {
		return h, true
	}
	sum, err := jsonChecksum(b)
	return h, err == nil && sum == h.Checksum
}

func (h hintJSON) encode() ([]byte, error) {
	h.Checksum = ""
	b, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	if h.Checksum, err = jsonChecksum(b); err != nil {
		return nil, err
	}
	return json.Marshal(h)
}

// jsonChecksum returns the MD5 of a JSON object in the protocol's canonical
// form, without its member checksum.
func jsonChecksum(b []byte) (string, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var top map[string]any
	if err := dec.Decode(&top); err != nil {
		return "", fmt.Errorf("checksum: %w", err)
	}
	delete(top, "checksum")
	sum := md5.Sum([]byte(strings.Join(appendCanonical(nil, "", top), ",")))
	return hex.EncodeToString(sum[:]), nil
}

// appendCanonical appends a line for each value below v: path, equals sign,
// value.
func appendCanonical(lines []string, path string, v any) []string {
	join := func(step string) string {
		if path == "" {
			return step
		}
		return path + "+" + step
	}
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			lines = appendCanonical(lines, join(canonicalString(k)), v[k])
		}
	case []any:
		for i, e := range v {
			lines = appendCanonical(lines, join(fmt.Sprint(i)), e)
		}
	case string:
		lines = append(lines, path+"="+canonicalString(v))
	case nil:
		lines = append(lines, path+"=null")
	default: // numbers as they are written, booleans
		lines = append(lines, fmt.Sprintf("%s=%v", path, v))
	}
	return lines
}

func canonicalString(s string) string {
	return `"` + escapeBytes(s, func(c byte) bool {
		plain := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		return !plain && strings.IndexByte("-._~", c) < 0
	}) + `"`
}
