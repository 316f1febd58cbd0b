package datafile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/format"
	"github.com/pierrec/lz4/v4"
)

// Codec is how pages are compressed.
type Codec uint8

// The codecs. The zero Codec is Zstd.
const (
	Zstd Codec = iota
	Snappy
	Uncompressed
)

// parquetCodec is the codec's number in Parquet.
func (c Codec) parquetCodec() (int32, error) {
	switch c {
	case Zstd:
		return 6, nil
	case Snappy:
		return 1, nil
	case Uncompressed:
		return 0, nil
	}
	return 0, fmt.Errorf("%w: codec %d", ErrUnsupported, c)
}

// zstdEncoder compresses for all writers. Entropy coding of literals, which is
// off below the default level, is what makes plain numbers small.
var zstdEncoder = sync.OnceValues(func() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithAllLitEntropyCompression(true),
		zstd.WithEncoderCRC(false),
		zstd.WithWindowSize(1<<20))
})

// compress appends nothing: it returns b compressed, in dst's memory where that
// is large enough.
func (c Codec) compress(dst, b []byte) ([]byte, error) {
	switch c {
	case Zstd:
		enc, err := zstdEncoder()
		if err != nil {
			return nil, err
		}
		return enc.EncodeAll(b, dst[:0]), nil
	case Snappy:
		if need := s2.MaxEncodedLen(len(b)); need < 0 {
			return nil, fmt.Errorf("%w: page of %d bytes", ErrMismatch, len(b))
		} else if cap(dst) < need {
			dst = make([]byte, need)
		}
		return s2.EncodeSnappy(dst[:cap(dst)], b), nil
	}
	return append(dst[:0], b...), nil
}

// zstdDecoder serves all readers. It stops where dst is full.
var zstdDecoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderLowmem(true), zstd.WithDecodeAllCapLimit(true))
})

// inflateStep is up to how many bytes memory is taken for a page that a few
// bytes claim to be large.
const inflateStep = 64 << 20

// inflate returns b, of which size bytes are to come, uncompressed, in dst's
// memory where that is large enough. Bytes that are not compressed are copied.
func (p *pageReader) inflate(dst, b []byte, size int) ([]byte, error) {
	if size < 0 || size > mostInflated(p.codec, len(b)) {
		return nil, fmt.Errorf("%w: page of %d bytes, of which the file has %d", ErrCorrupt, size, len(b))
	}
	var err error
	switch p.codec {
	case format.Uncompressed:
		dst = append(grow(dst[:0], size), b...)
	case format.Zstd:
		dst, err = inflateZstd(dst, b, size)
	case format.Snappy:
		var n int
		if n, err = s2.DecodedLen(b); err == nil && n == size {
			dst, err = s2.Decode(grow(dst[:0], size)[:size], b)
		}
	case format.Lz4Raw:
		var n int
		dst = grow(dst[:0], size)[:size]
		n, err = lz4.UncompressBlock(b, dst)
		dst = dst[:max(n, 0)]
	case format.Gzip:
		var r *gzip.Reader
		if r, err = gzip.NewReader(bytes.NewReader(b)); err == nil {
			dst, err = readUpTo(dst, r, size)
		}
	case format.Brotli:
		dst, err = readUpTo(dst, brotli.NewReader(bytes.NewReader(b)), size)
	default:
		return nil, fmt.Errorf("%w: compressed by %s", ErrUnsupported, p.codec)
	}
	if err != nil {
		return nil, fmt.Errorf("uncompress: %w: %w", ErrCorrupt, err)
	}
	if len(dst) != size {
		return nil, fmt.Errorf("%w: page of %d bytes, want %d", ErrCorrupt, len(dst), size)
	}
	return dst, nil
}

// mostInflated returns how many bytes a codec can make of n at most; those that
// are not bounded by it are by what they turn out to be.
func mostInflated(c format.CompressionCodec, n int) int {
	switch c {
	case format.Uncompressed:
		return n
	case format.Snappy:
		return 64*n + 64
	case format.Lz4Raw:
		return 256*n + 64
	}
	return math.MaxInt32
}

// inflateZstd takes more memory only when the bytes do not fit.
func inflateZstd(dst, b []byte, size int) ([]byte, error) {
	dec, err := zstdDecoder()
	if err != nil {
		return nil, err
	}
	for room := min(size, inflateStep); ; room = min(size, 4*room) {
		dst = grow(dst[:0], room)
		out, err := dec.DecodeAll(b, dst)
		if !errors.Is(err, zstd.ErrDecoderSizeExceeded) || room >= size {
			return out, err
		}
	}
}

// readUpTo reads all of r, which must be no more than size bytes.
func readUpTo(dst []byte, r io.Reader, size int) ([]byte, error) {
	dst = dst[:0]
	for len(dst) < size {
		dst = grow(dst, min(size-len(dst), inflateStep))
		n, err := io.ReadFull(r, dst[len(dst):min(cap(dst), size)])
		dst = dst[:len(dst)+n]
		if err != nil {
			return nil, err
		}
	}
	var more [1]byte
	switch n, err := io.ReadFull(r, more[:]); {
	case n > 0:
		return nil, errors.New("more bytes than the page has")
	case err != io.EOF:
		return nil, err
	}
	return dst, nil
}
