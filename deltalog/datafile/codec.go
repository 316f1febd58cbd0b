package datafile

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
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

// inflate returns b, of which size bytes are to come, uncompressed, in dst's
// memory where that is large enough. Bytes that are not compressed are copied.
func (p *pageReader) inflate(dst, b []byte, size int) ([]byte, error) {
	if size < 0 {
		return nil, fmt.Errorf("%w: page of %d bytes", ErrCorrupt, size)
	}
	dst = grow(dst[:0], size)
	var err error
	switch p.codec {
	case format.Uncompressed:
		if len(b) == size {
			return append(dst, b...), nil
		}
	case format.Zstd:
		var dec *zstd.Decoder
		if dec, err = zstdDecoder(); err == nil {
			dst, err = dec.DecodeAll(b, dst)
		}
	case format.Snappy:
		var n int
		if n, err = s2.DecodedLen(b); err == nil && n == size {
			dst, err = s2.Decode(dst[:size], b)
		}
	case format.Gzip, format.Brotli, format.Lz4Raw:
		dst, err = parquet.LookupCompressionCodec(p.codec).Decode(dst, b)
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
