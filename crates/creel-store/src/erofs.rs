//! Layers that are not unpacked: the archive, uncompressed, and an EROFS image that points into it.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use creel_layer::erofs::{Indexed, Tee, Unfit, index};
use creel_layer::{Error, Limits, UnpackOptions, Unpacked};
use creel_types::Digest;

use crate::driver::LayerForm;
use crate::failpoint;
use crate::files;
use crate::layers::{LayerId, LayerRecord, unpack_into};

/// How much of a kept archive is read at once, in bytes.
const READ: usize = 256 << 10;

/// What has become of a layer's archive when it has been read.
pub(crate) enum Kept {
    /// It was unpacked.
    Unpacked(Unpacked),
    /// It lies there, and the image can be written.
    Indexed(Box<Indexed>),
    /// It lies there, and has to be unpacked, for this reason.
    Unfit(String),
}

/// A layer's two files.
fn files_in(directory: &Path) -> (PathBuf, PathBuf) {
    let image = directory.join("layer.erofs");
    (creel_sys::erofs::archive_of(&image), image)
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |cause| Error::Io { step, path, cause }
}

impl Kept {
    /// Reads an archive to its end, keeping it in a layer's directory. `None`: the layers below are needed first.
    pub(crate) fn with_archive(
        tar: impl BufRead,
        directory: &Path,
        options: &UnpackOptions,
    ) -> Result<Option<Self>, Error> {
        let (path, _) = files_in(directory);
        let archive = File::create(&path).map_err(failed("create", &path))?;
        let mut tee = Tee::new(tar, Told { file: archive, failure: None });
        let alone = options.alone;
        let done = index(&mut tee, &options.limits, |unfit| !(alone && matches!(unfit, Unfit::Below(_))));
        let (_, Told { failure, .. }) = tee.into_parts();
        match (done, failure) {
            // what it says of the stream is not the stream's fault
            (Err(_), Some(cause)) => Err(failed("write", &path)(cause)),
            (Err(why), None) => Err(why),
            (Ok(Ok(indexed)), _) => Ok(Some(Kept::Indexed(Box::new(indexed)))),
            (Ok(Err(Unfit::Below(_))), _) if alone => Ok(None),
            (Ok(Err(Unfit::Below(entry))), _) => {
                Ok(Some(Kept::Unfit(format!("`{entry}` takes something from the layers below"))))
            }
            (Ok(Err(Unfit::Other(why))), _) => Ok(Some(Kept::Unfit(why))),
        }
    }
}

/// The archive's file, which remembers why it could not be written: the error itself travels through the tar reader.
struct Told {
    file: File,
    failure: Option<io::Error>,
}

impl io::Write for Told {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).inspect_err(|why| {
            if why.kind() != io::ErrorKind::Interrupted {
                self.failure = Some(why.raw_os_error().map_or_else(
                    || io::Error::new(why.kind(), why.to_string()),
                    io::Error::from_raw_os_error,
                ));
            }
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// What overlayfs tells the layers' file systems apart by.
fn uuid(diff_id: &Digest) -> [u8; 16] {
    let hex = diff_id.hex();
    std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap_or(0))
}

/// Writes the image beside its archive.
pub(crate) fn write(indexed: Indexed, directory: &Path, diff_id: Digest) -> Result<LayerRecord, Error> {
    let (archive, path) = files_in(directory);
    let length = std::fs::metadata(&archive).map_err(failed("look at", &archive))?.len();
    failpoint("erofs-before-image");
    let image = File::create(&path).map_err(failed("create", &path))?;
    let size = indexed.tree.write(image, uuid(&diff_id), length).map_err(failed("write", &path))?;
    Ok(LayerRecord {
        id: LayerId::new(diff_id),
        diff_id,
        composed: false,
        root_entry: indexed.root_entry,
        bytes: indexed.bytes,
        entries: indexed.entries,
        form: LayerForm::Erofs,
        stored: Some(length + size),
    })
}

/// Unpacks the archive that was kept, and lets go of it. `None`: the layers below are needed first.
pub(crate) fn unpack_kept(directory: &Path, options: &UnpackOptions) -> Result<Option<Unpacked>, Error> {
    let (path, _) = files_in(directory);
    let archive = File::open(&path).map_err(failed("open", &path))?;
    let unpacked = unpack_into(directory, options, |fs, options| {
        creel_layer::unpack_buffered(BufReader::with_capacity(READ, archive), fs, options)
    })?;
    std::fs::remove_file(&path).map_err(failed("delete", &path))?;
    Ok(unpacked)
}

/// What is wrong with a layer in this form, and how many bytes were read to find out: the archive must have the layer's
/// digest, and the image must be what is made of that archive, byte for byte. So it proves itself, whether the compressed
/// archive is kept or not. `scratch` is a name for a file.
pub(crate) fn damage(
    directory: &Path,
    diff_id: &Digest,
    scratch: &Path,
) -> Result<(Option<String>, u64), Error> {
    let (archive, image) = files_in(directory);
    let (digest, length) = match File::open(&archive).and_then(files::hash_file) {
        Ok(found) => found,
        Err(why) => return Ok((Some(format!("its archive cannot be read: {why}")), 0)),
    };
    if digest != *diff_id {
        return Ok((Some(format!("the digest of its archive is {digest}")), length));
    }
    let file = File::open(&archive).map_err(failed("open", &archive))?;
    let Ok(indexed) = index(BufReader::with_capacity(READ, file), &Limits::NONE, |_| false)? else {
        return Ok((Some("its archive is none that an image is made of".to_owned()), length));
    };
    let fresh = File::create(scratch).map_err(failed("create", scratch))?;
    let size = indexed.tree.write(fresh, uuid(diff_id), length).map_err(failed("write", scratch))?;
    let expected = File::open(scratch).and_then(files::hash_file).map_err(failed("read", scratch))?;
    let what = match File::open(&image).and_then(files::hash_file) {
        Ok(found) if found == expected => None,
        Ok(_) => Some("its image is not what its archive makes".to_owned()),
        Err(why) => Some(format!("its image cannot be read: {why}")),
    };
    Ok((what, length + size))
}
