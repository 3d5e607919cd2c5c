//! Files that options name and that are written beside the work, as a trace or a plot: they take the place
//! of nothing but a file that the same option made before.

use cellfeed::{Error, Result};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// An option that names a file to write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// The option.
    pub(crate) option: &'static str,
    /// What it makes, in words.
    pub(crate) what: &'static str,
    /// How every file begins that it made.
    pub(crate) begins: &'static str,
}

impl Output {
    /// Refuses a path that is, or is inside of, one of the stores that are read, and one where there is
    /// something that this option did not make. To be called before any work.
    ///
    /// # Errors
    /// Of kind `InvalidInput`.
    pub(crate) fn check(&self, path: &Path, stores: &[String]) -> Result<()> {
        let option = self.option;
        let refused = |why: String| Err(Error::invalid_input(why).with("file", path.display()));
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| Path::new("."));
        let Some(name) = path.file_name() else {
            return refused(format!("{option} wants the name of a file"));
        };
        if path.is_dir() {
            return refused(format!("{option} names a folder; give the name of a file"));
        }
        let Ok(folder) = folder.canonicalize() else {
            return refused(format!("{option} names a file in a folder that does not exist"));
        };
        // Where a link leads to is what would be lost.
        let places = [path.canonicalize().ok(), Some(folder.join(name))];
        for store in stores.iter().flat_map(|store| places_of(store)) {
            if places.iter().flatten().any(|place| place.starts_with(&store)) {
                return refused(format!(
                    "{option} names the store that is read, or a file inside of it; give another name"
                ));
            }
        }
        self.check_replaceable(path)
    }

    /// Refuses to replace what this option did not make.
    ///
    /// # Errors
    /// Of kind `InvalidInput`.
    pub(crate) fn check_replaceable(&self, path: &Path) -> Result<()> {
        if path.symlink_metadata().is_err() || self.made(path) {
            return Ok(());
        }
        let (option, what) = (self.option, self.what);
        Err(Error::invalid_input(format!(
            "{option} names something that exists and is no {what}; remove it, or give another name"
        ))
        .with("file", path.display()))
    }

    /// Whether this option made a file.
    fn made(&self, path: &Path) -> bool {
        // A pipe would let us wait.
        if !path.metadata().is_ok_and(|found| found.is_file()) {
            return false;
        }
        let mut begins = vec![0; self.begins.len()];
        File::open(path).and_then(|mut file| file.read_exact(&mut begins)).is_ok()
            && begins == self.begins.as_bytes()
    }
}

/// Where a store lies that is of this machine, with and without what is behind `#`, which names may have.
fn places_of(store: &str) -> impl Iterator<Item = PathBuf> {
    let path = store.rsplit_once('#').map_or(store, |(path, _)| path);
    [store, path].into_iter().filter_map(|path| Path::new(path).canonicalize().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLOT: Output = Output { option: "--plot", what: "plot", begins: "<svg" };

    #[test]
    fn only_what_an_option_made_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let store = at("store.zarr");
        std::fs::create_dir(&store).unwrap();
        std::fs::write(at("old.svg"), "<svg xmlns=...>").unwrap();
        std::fs::write(store.join("old.svg"), "<svg xmlns=...>").unwrap();
        for (name, text) in [("atlas.h5ad", "\x7fHDF"), ("empty", ""), ("short", "<s")] {
            std::fs::write(at(name), text).unwrap();
        }
        std::os::unix::fs::symlink(at("atlas.h5ad"), at("link.svg")).unwrap();
        std::os::unix::fs::symlink(at("nowhere"), at("dangling.svg")).unwrap();
        std::os::unix::fs::symlink(&store, at("also.zarr")).unwrap();
        let name = |path: PathBuf| path.to_str().unwrap().to_owned();
        let stores = [name(at("atlas.h5ad#mod/rna")), name(store.clone())];
        for fine in ["new.svg", "old.svg"] {
            PLOT.check(&at(fine), &stores).unwrap();
        }
        for (bad, why) in [
            ("atlas.h5ad", "the store that is read"),
            ("link.svg", "the store that is read"),
            ("store.zarr/new.svg", "the store that is read"),
            ("store.zarr/old.svg", "the store that is read"),
            ("also.zarr/old.svg", "the store that is read"),
            ("empty", "exists and is no plot"),
            ("short", "exists and is no plot"),
            ("dangling.svg", "exists and is no plot"),
            ("store.zarr", "names a folder"),
            ("no/such/new.svg", "does not exist"),
        ] {
            let error = PLOT.check(&at(bad), &stores).unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
        assert!(PLOT.check(Path::new("/dev/null"), &[]).is_err());
    }
}
