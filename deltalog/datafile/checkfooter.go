package datafile

import "io"

// CheckFooter returns an error wrapping [ErrCorrupt] unless the footer of a
// Parquet file of size bytes, of data or not, is one that can be decoded in memory
// and time that follow from its length. Decoders that believe what a footer says
// need not be bounded so.
func CheckFooter(r io.ReaderAt, size int64) (err error) {
	defer guard(&err)
	_, err = readTail(r, size)
	return err
}
