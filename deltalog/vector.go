package deltalog

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/google/uuid"

	"github.com/millrace-io/millrace/deltalog/store"
)

const (
	// vectorMagic begins a vector: the portable form of a 64-bit Roaring bitmap.
	vectorMagic = 1681511377
	// vectorFileVersion is the first byte of a file of vectors.
	vectorFileVersion = 1
	// maxVectorBytes bounds what is read for one vector.
	maxVectorBytes = 1 << 30
)

// ReadVector returns the rows of f that are hidden, counted from 0; none when it
// has no vector. The caller owns the bitmap.
func (s *Snapshot) ReadVector(ctx context.Context, f *File) (*roaring64.Bitmap, error) {
	return readVector(ctx, s.st, f)
}

func readVector(ctx context.Context, st store.Store, f *File) (*roaring64.Bitmap, error) {
	if f.Vector == nil {
		return roaring64.New(), nil
	}
	bm, err := f.Vector.read(ctx, st)
	if err != nil {
		return nil, fmt.Errorf("read deletion vector of %s: %w", f.Path, err)
	}
	return bm, nil
}

// read fetches a vector from where it is and checks it.
func (v *Vector) read(ctx context.Context, st store.Store) (*roaring64.Bitmap, error) {
	var data []byte
	switch v.StorageType {
	case "i":
		b, err := decodeZ85(v.PathOrInline)
		if err != nil {
			return nil, err
		}
		// The text is padded to whole groups of four bytes.
		if len(b) < int(v.SizeInBytes) {
			return nil, fmt.Errorf("%w: %d bytes inline, want %d", ErrCorrupt, len(b), v.SizeInBytes)
		}
		data = b[:v.SizeInBytes]
	case "u", "p":
		name, err := v.nameIn(st)
		if err != nil {
			return nil, err
		}
		if data, err = v.readFile(ctx, st, name); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("%w: storage type %q", ErrUnsupported, v.StorageType)
	}
	bm, err := decodeVector(data)
	if err != nil {
		return nil, err
	}
	if n := bm.GetCardinality(); n != uint64(v.Cardinality) {
		return nil, fmt.Errorf("%w: it hides %d rows, the log says %d", ErrCorrupt, n, v.Cardinality)
	}
	return bm, nil
}

// nameIn returns the name of the file that the vector is in. A path that is
// absolute has to lie within the store.
func (v *Vector) nameIn(st store.Store) (string, error) {
	if v.StorageType == "p" {
		if name, ok := nameWithin(st.URI(), v.PathOrInline); ok {
			return name, nil
		}
	}
	return v.name()
}

// name is nameIn for paths that are not absolute.
func (v *Vector) name() (string, error) {
	if v.StorageType == "p" {
		return objectName(v.PathOrInline)
	}
	n := len(v.PathOrInline) - z85UUID
	if n < 0 {
		return "", fmt.Errorf("%w: %q is too short for a UUID", ErrCorrupt, v.PathOrInline)
	}
	b, err := decodeZ85(v.PathOrInline[n:])
	if err != nil {
		return "", err
	}
	name := "deletion_vector_" + uuid.UUID(b).String() + ".bin"
	if n > 0 {
		name = v.PathOrInline[:n] + "/" + name
	}
	if err := store.CheckName(name); err != nil {
		return "", fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return name, nil
}

// readFile reads the vector's bytes out of its file.
func (v *Vector) readFile(ctx context.Context, st store.Store, name string) ([]byte, error) {
	r, size, err := st.OpenRange(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	offset := int64(max(v.Offset, 1))
	if v.SizeInBytes > maxVectorBytes || offset+int64(v.SizeInBytes)+8 > size {
		return nil, fmt.Errorf("%s: %w: %d bytes at %d of %d", name, ErrCorrupt, v.SizeInBytes, offset, size)
	}
	b := make([]byte, 4+int(v.SizeInBytes)+4)
	if _, err := r.ReadAt(b, offset); err != nil && err != io.EOF {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	data := b[4 : len(b)-4]
	if n := binary.BigEndian.Uint32(b); n != uint32(v.SizeInBytes) {
		return nil, fmt.Errorf("%s: %w: a vector of %d bytes at %d, want %d", name, ErrCorrupt, n, offset, v.SizeInBytes)
	}
	if sum := binary.BigEndian.Uint32(b[len(b)-4:]); sum != crc32.ChecksumIEEE(data) {
		return nil, fmt.Errorf("%s: %w: checksum of the vector at %d", name, ErrCorrupt, offset)
	}
	return data, nil
}

// decodeVector reads magic and bitmap. It keeps no reference to data.
func decodeVector(data []byte) (*roaring64.Bitmap, error) {
	if len(data) < 4 || binary.LittleEndian.Uint32(data) != vectorMagic {
		return nil, fmt.Errorf("%w: not a portable 64-bit Roaring bitmap", ErrCorrupt)
	}
	body, err := checkRoaring64(data[4:])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	bm := roaring64.New()
	if _, err := bm.ReadFrom(bytes.NewReader(body)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return bm, nil
}

// WriteVectors writes bitmaps of hidden rows into one file, and returns where
// each is, for [File.WithVector]. It compresses the bitmaps in place. The file is
// durable on return. No bitmap may be empty.
func (t *Table) WriteVectors(ctx context.Context, rows []*roaring64.Bitmap) ([]*Vector, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	id := uuid.New()
	path := encodeZ85(id[:])
	name := "deletion_vector_" + id.String() + ".bin"
	buf := bytes.NewBuffer([]byte{vectorFileVersion})
	vectors := make([]*Vector, len(rows))
	for i, bm := range rows {
		offset := buf.Len()
		size, err := appendVector(buf, bm)
		if err != nil {
			return nil, fmt.Errorf("write deletion vectors: %w", err)
		}
		if buf.Len() > math.MaxInt32 {
			return nil, fmt.Errorf("write deletion vectors: %w: over 2 GiB in one file", ErrUnsupported)
		}
		vectors[i] = &Vector{
			StorageType: "u", PathOrInline: path, Offset: int32(offset),
			SizeInBytes: int32(size), Cardinality: int64(bm.GetCardinality()),
		}
	}
	if err := putOwn(ctx, t.st, name, buf.Bytes()); err != nil {
		return nil, fmt.Errorf("write deletion vectors: %w", err)
	}
	return vectors, nil
}

// appendVector writes one vector in its frame and returns its size without it.
func appendVector(buf *bytes.Buffer, bm *roaring64.Bitmap) (int, error) {
	if bm.IsEmpty() {
		return 0, fmt.Errorf("%w: an empty one", ErrInvalid)
	}
	bm.RunOptimize()
	start := buf.Len()
	buf.Write(make([]byte, 4)) // the size, once known
	_ = binary.Write(buf, binary.LittleEndian, uint32(vectorMagic))
	if _, err := bm.WriteTo(buf); err != nil {
		return 0, err
	}
	data := buf.Bytes()[start+4:]
	if len(data) > maxVectorBytes {
		return 0, fmt.Errorf("%w: one over 1 GiB", ErrUnsupported)
	}
	binary.BigEndian.PutUint32(buf.Bytes()[start:], uint32(len(data)))
	_ = binary.Write(buf, binary.BigEndian, crc32.ChecksumIEEE(data))
	return len(data), nil
}

// putOwn writes an object whose name is nobody else's. That it is there after an
// error is success.
func putOwn(ctx context.Context, st store.Store, name string, b []byte) error {
	err := st.PutIfAbsent(ctx, name, b)
	if err == nil {
		return nil
	}
	if got, getErr := st.Get(ctx, name); getErr == nil && bytes.Equal(got, b) {
		return nil
	}
	return err
}
