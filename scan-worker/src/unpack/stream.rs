//! One compressed stream: gzip, xz, zstd.

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use super::budget::Spent;
use super::{Form, Walk};

/// What a stream may ask to be remembered of what was unpacked, in bytes: as much as `xz -9`
/// and `zstd -19` do. Asking for more costs an attacker one byte.
const WINDOW: u32 = 64 << 20;

/// What a decoder of such a window takes, in KiB.
const XZ_MEMORY: u32 = (WINDOW >> 10) + (1 << 10);

pub(super) fn read(form: Form, content: &[u8], walk: &mut Walk<'_>) -> Result<(), Spent> {
    let packed = content.len();
    match form {
        Form::Gzip => {
            let reader = MultiGzDecoder::new(content);
            let name = reader.header().and_then(|header| header.filename());
            let name = name.unwrap_or(b"gzip").to_owned();
            walk.packed(&name, packed, reader)
        }
        Form::Xz => walk.packed(b"xz", packed, xz(content)),
        Form::Zstd => walk.packed(b"zstd", packed, zstd(content)),
        Form::Zip | Form::Tar => Ok(()),
    }
}

pub(super) fn xz(content: &[u8]) -> impl Read {
    XzReader::new_mem_limit(content, true, XZ_MEMORY)
}

pub(super) fn zstd(content: &[u8]) -> impl Read {
    Frames {
        rest: content,
        frame: None,
    }
}

/// The frames of a zstd stream, one after the other.
struct Frames<'a> {
    rest: &'a [u8],
    frame: Option<StreamingDecoder<&'a [u8], FrameDecoder>>,
}

impl<'a> Frames<'a> {
    /// Begins with the next frame that holds something; none at the end.
    fn next(&mut self) -> io::Result<Option<StreamingDecoder<&'a [u8], FrameDecoder>>> {
        loop {
            if self.rest.is_empty() {
                return Ok(None);
            }
            match StreamingDecoder::new_with_max_window_size(self.rest, u64::from(WINDOW)) {
                Ok(frame) => return Ok(Some(frame)),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = usize::try_from(length).map_err(io::Error::other)?;
                    // Its own header has eight bytes.
                    self.rest = self
                        .rest
                        .get(8..)
                        .and_then(|rest| rest.get(length..))
                        .unwrap_or_default();
                }
                Err(error @ FrameDecoderError::WindowSizeTooBig { .. }) => {
                    return Err(io::Error::new(io::ErrorKind::OutOfMemory, error));
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}

impl Read for Frames<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.next()? {
                    Some(frame) => frame,
                    None => return Ok(0),
                },
            };
            match frame.read(buffer)? {
                0 => self.rest = frame.into_inner(),
                length => {
                    self.frame = Some(frame);
                    return Ok(length);
                }
            }
        }
    }
}
