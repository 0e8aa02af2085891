"""Bytes on disk as records: sources, varints, leveldb-style tables, TFRecord framing, ordered codes, checksums."""
