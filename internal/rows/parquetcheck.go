package rows

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// The library allocates what a Parquet file says of its parts before it reads them, so what it says is checked first.
const (
	// maxPage is the most that a page may be when it is unpacked, in bytes. Writers make pages of about 1 MiB.
	maxPage = 1 << 29
	// maxPageValues is how many values a page may have; a page of 1 MiB has 8 million bits.
	maxPageValues = 1 << 24
)

// checkFooter looks at the last 8 bytes of a file: the length of its metadata, and the magic number.
func checkFooter(src io.ReaderAt, size int64) error {
	var tail [8]byte
	if size < 12 {
		return fmt.Errorf("the file has %d bytes, too few for Parquet: it is cut off", size)
	}
	if _, err := src.ReadAt(tail[:], size-8); err != nil && err != io.EOF {
		return err
	}
	if string(tail[4:]) == "PARE" {
		return errors.New("the file is encrypted")
	}
	if string(tail[4:]) != "PAR1" {
		return errors.New("the file begins as Parquet but does not end so: it is cut off")
	}
	if n := int64(binary.LittleEndian.Uint32(tail[:])); n > size-12 {
		return fmt.Errorf("malformed Parquet: metadata of %d bytes in a file of %d", n, size)
	}
	return nil
}

// checkPages looks at the headers of all pages.
func checkPages(src io.ReaderAt, size int64, m *format.FileMetaData) error {
	for g := range m.RowGroups {
		for c := range m.RowGroups[g].Columns {
			if err := checkColumn(src, size, &m.RowGroups[g].Columns[c].MetaData); err != nil {
				return fmt.Errorf("row group %d, column %d: %w", g, c, err)
			}
		}
	}
	return nil
}

// checkColumn looks at the headers of the pages of a column in one row group, which follow each other.
func checkColumn(src io.ReaderAt, size int64, m *format.ColumnMetaData) error {
	at, length := m.DataPageOffset, m.TotalCompressedSize
	if m.DictionaryPageOffset != 0 {
		at = m.DictionaryPageOffset
	}
	if at < 0 || length < 0 || at > size || length > size-at {
		return fmt.Errorf("pages at byte %d, %d bytes long, in a file of %d", at, length, size)
	}
	section := io.NewSectionReader(src, at, length)
	r := bufio.NewReaderSize(section, 4096)
	var protocol thrift.CompactProtocol
	decoder := thrift.NewDecoder(protocol.NewReader(r))
	for next := int64(0); next < length; {
		if _, err := section.Seek(next, io.SeekStart); err != nil {
			return err
		}
		r.Reset(section)
		var header format.PageHeader
		if err := decoder.Decode(&header); err != nil {
			return fmt.Errorf("the header of the page at byte %d: %w", at+next, err)
		}
		read, err := section.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		body, packed := read-int64(r.Buffered()), int64(header.CompressedPageSize)
		if packed < 0 || packed > length-body {
			return fmt.Errorf("the page at byte %d says it has %d bytes, %d are left", at+next, packed, length-body)
		}
		if n := header.UncompressedPageSize; n < 0 || n > maxPage {
			return fmt.Errorf("the page at byte %d says it unpacks to %d bytes, at most %d are plausible", at+next, n, maxPage)
		}
		for _, n := range []int32{header.DataPageHeader.V.NumValues, header.DataPageHeaderV2.V.NumValues, header.DictionaryPageHeader.V.NumValues} {
			if n < 0 || n > maxPageValues {
				return fmt.Errorf("the page at byte %d says it has %d values, at most %d are plausible", at+next, n, maxPageValues)
			}
		}
		next = body + packed
	}
	return nil
}
