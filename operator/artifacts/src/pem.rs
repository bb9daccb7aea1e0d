//! Reading of files in PEM.

/// Returns the content of a file without the byte order mark that some editors write: PEM parsers
/// do not skip it.
pub(crate) fn without_byte_order_mark(content: &[u8]) -> &[u8] {
    content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content)
}
