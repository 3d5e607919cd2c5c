//! A store for a bucket. Whether it may be written there is tried first; then it is put together on this
//! machine, as any other, and uploaded when it is complete.

use super::{ConvertOptions, Converted, Progress, Stage, format, write};
use crate::Store;
use cellfeed_core::io::Staging;
use cellfeed_core::{Error, ErrorKind, Result};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

pub(super) fn convert(
    source: &Store,
    url: &str,
    options: &ConvertOptions,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Converted> {
    let format = format(Path::new(url.trim_end_matches('/')), options)?;
    let client = options.remote.client()?;
    let destination = client.destination(url, format.opener(), options.write.overwrite())?;
    if source.locations().iter().any(|location| destination.overlaps(location)) {
        return Err(Error::invalid_input(
            "the destination is the source, or one is inside the other; give another name",
        )
        .with("url", url));
    }
    let folder = options.staging.clone().unwrap_or_else(std::env::temp_dir);
    // Where it is says what to do about a disk that is full.
    let blame = |e: Error| match e.kind() {
        ErrorKind::Io | ErrorKind::NotFound => e.with("staging", folder.display()),
        _ => e,
    };
    let staging = Staging::scratch(&folder.join("cellfeed-upload")).map_err(blame)?;
    // Others share that folder, and need not see these cells.
    std::fs::set_permissions(staging.path(), Permissions::from_mode(0o700))
        .map_err(|e| blame(Error::io("cannot close to others", e)))?;
    let path = staging.path().join(destination.name());
    let converted = write(source, &path, format, options, progress).map_err(|e| {
        if e.context().any(|(key, value)| key == "file" && Path::new(value).starts_with(&folder)) {
            blame(e)
        } else {
            e
        }
    })?;
    let n_obs = converted.written.n_obs;
    destination.upload(&path, &mut |done, total| {
        let share = u128::from(n_obs) * u128::from(done) / u128::from(total.max(1));
        let cells = u64::try_from(share).unwrap_or(n_obs);
        progress(Progress { stage: Stage::Uploading, cells, n_obs })
    })?;
    Ok(converted)
}
