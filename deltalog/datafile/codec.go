package datafile

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
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
