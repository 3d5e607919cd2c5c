//! What a writer must refuse, and that nothing is left of it.

use super::store::{batches, new_store, odd_rows};
use super::{Check, Place, Writing};
use crate::fixtures;
use crate::oracle::Oracle;
use arrow_array::{ArrayRef, DictionaryArray, Int8Array, Int32Array, StringArray};
use cellfeed_core::{
    Backend, CellBatch, ErrorKind, Extras, MatrixKey, NewStore, Result as CoreResult, StoreWriter,
    WriteOptions,
};
use std::path::Path;
use std::sync::Arc;

/// Makes a good batch a bad one.
type Spoil = fn(&mut CellBatch, &NewStore) -> CoreResult<()>;

/// Batches that are not what was announced.
const BAD: [(&str, Spoil); 11] = [
    ("a batch without a matrix", |b, _| {
        b.matrices.pop();
        Ok(())
    }),
    ("a batch without a column", |b, _| {
        b.obs.pop();
        Ok(())
    }),
    ("a batch without names", |b, _| {
        b.obs_index = None;
        Ok(())
    }),
    ("a batch that says it has more cells", |b, _| {
        b.n_rows += 1;
        Ok(())
    }),
    ("a column that is too short", |b, _| {
        b.obs[0] = b.obs[0].slice(0, 0);
        Ok(())
    }),
    ("a matrix of more rows", |b, _| {
        let mut segments = b.matrices[0].segments().to_vec();
        segments.extend(b.matrices[0].segments().to_vec());
        b.matrices[0] = cellfeed_core::CsrRows::new(segments);
        Ok(())
    }),
    ("a value that the announced type cannot hold", |b, new| {
        // The fixture's layer has 16 bits.
        let layer = |m: &cellfeed_core::NewMatrix| matches!(m.key, MatrixKey::Layer(_));
        if let Some(i) = new.matrices.iter().position(layer) {
            b.matrices[i] = odd_rows(vec![1], vec![70_000u32].into(), 10)?;
        }
        Ok(())
    }),
    ("a fraction in a type of whole numbers", |b, new| {
        let layer = |m: &cellfeed_core::NewMatrix| matches!(m.key, MatrixKey::Layer(_));
        if let Some(i) = new.matrices.iter().position(layer) {
            b.matrices[i] = odd_rows(vec![1], vec![0.5f32].into(), 10)?;
        }
        Ok(())
    }),
    ("a gene past the last", |b, new| {
        let n_vars = new.matrices[0].var.n_rows();
        let past = u32::try_from(n_vars).unwrap_or(u32::MAX);
        b.matrices[0] = odd_rows(vec![past], vec![1f32].into(), n_vars + 1)?;
        Ok(())
    }),
    ("a column of another type", |b, _| {
        b.obs[2] = Arc::new(Int8Array::from(vec![1]));
        Ok(())
    }),
    ("a code without a category", |b, _| {
        let words = StringArray::from_iter_values((0..9).map(|i| i.to_string()));
        let codes = DictionaryArray::new(Int32Array::from(vec![8]), Arc::new(words) as ArrayRef);
        b.obs[0] = Arc::new(codes);
        Ok(())
    }),
];

impl<C, O> Writing<C, O>
where
    C: Fn(&Path, NewStore, &WriteOptions) -> CoreResult<Box<dyn StoreWriter>>,
    O: Fn(&Path) -> CoreResult<Arc<dyn Backend>>,
{
    pub(super) fn refuses(&self, oracle: &Oracle) -> Check {
        self.refuses_wrong_batches(oracle)?;
        self.refuses_wrong_counts(oracle)?;
        self.refuses_unknown_codecs(oracle)?;
        self.leaves_nothing_when_dropped(oracle)?;
        self.keeps_what_is_there(oracle)
    }

    fn begin(
        &self,
        place: &Place,
        oracle: &Oracle,
        options: &WriteOptions,
    ) -> Check<(Box<dyn StoreWriter>, NewStore, Vec<CellBatch>)> {
        let new = new_store(oracle, Extras::default()).map_err(|e| e.to_string())?;
        let batches = batches(oracle, &new).map_err(|e| e.to_string())?;
        let writer = (self.create)(&place.path, new.clone(), options);
        let writer = writer.map_err(|e| format!("it cannot be created: {e}"))?;
        Ok((writer, new, batches))
    }

    /// Each is refused by `append`, or by `finish` at the latest.
    fn refuses_wrong_batches(&self, oracle: &Oracle) -> Check {
        for (what, spoil) in BAD {
            let place = Place::new(&self.file_name)?;
            let (mut writer, new, batches) =
                self.begin(&place, oracle, &WriteOptions::default())?;
            let one = batches.iter().find(|b| b.n_rows == 1);
            let mut bad = one.ok_or("the fixture has no batch of one cell")?.clone();
            spoil(&mut bad, &new).map_err(|e| e.to_string())?;
            match writer.append(&bad) {
                Err(e) if e.kind() == ErrorKind::InvalidInput => {}
                Err(e) => return Err(format!("{what}: expected invalid input, got {e}")),
                // Some of it can only be seen when all is there.
                Ok(()) => return Err(format!("{what} is taken")),
            }
            drop(writer);
            place.is_empty(&format!("after {what} was refused"))?;
        }
        Ok(())
    }

    fn refuses_wrong_counts(&self, oracle: &Oracle) -> Check {
        let place = Place::new(&self.file_name)?;
        for what in ["too few cells", "no cells", "too many cells"] {
            let (mut writer, _, batches) = self.begin(&place, oracle, &WriteOptions::default())?;
            let batches: Vec<&CellBatch> = match what {
                "too few cells" => batches.iter().take(batches.len() - 1).collect(),
                "no cells" => Vec::new(),
                _ => batches.iter().chain(&batches[..1]).collect(),
            };
            let appended = batches.into_iter().try_for_each(|batch| writer.append(batch));
            match appended.and_then(|()| writer.finish().map(|_| ())) {
                Err(e) if e.kind() == ErrorKind::InvalidInput => {}
                Err(e) => return Err(format!("{what}: expected invalid input, got {e}")),
                Ok(()) => return Err(format!("a store of {what} is finished")),
            }
            place.is_empty(&format!("after {what}"))?;
        }
        Ok(())
    }

    fn refuses_unknown_codecs(&self, oracle: &Oracle) -> Check {
        let place = Place::new(&self.file_name)?;
        let new = new_store(oracle, Extras::default()).map_err(|e| e.to_string())?;
        let options = WriteOptions::default().with_codec("no such codec");
        match (self.create)(&place.path, new, &options) {
            Err(e) if e.kind() == ErrorKind::InvalidInput => {}
            Err(e) => return Err(format!("an unknown codec: expected invalid input, got {e}")),
            // A caller that sets the codec itself tests that one.
            Ok(writer) => drop(writer),
        }
        place.is_empty("after an unknown codec")
    }

    fn leaves_nothing_when_dropped(&self, oracle: &Oracle) -> Check {
        let place = Place::new(&self.file_name)?;
        for n in [0, 1, usize::MAX] {
            let (mut writer, _, batches) = self.begin(&place, oracle, &WriteOptions::default())?;
            for batch in batches.iter().take(n) {
                writer.append(batch).map_err(|e| e.to_string())?;
            }
            if place.path.symlink_metadata().is_ok() {
                return Err("the store has its name before it is finished".to_owned());
            }
            drop(writer);
            place.is_empty("after it was dropped")?;
        }
        Ok(())
    }

    fn keeps_what_is_there(&self, oracle: &Oracle) -> Check {
        let place = Place::new(&self.file_name)?;
        let none = Extras::default();
        let write = |oracle: &Oracle, options: &WriteOptions| {
            let new = new_store(oracle, none.clone()).map_err(|e| e.to_string())?;
            self.write(&place, oracle, new, options)
        };
        let written = write(oracle, &WriteOptions::default())?;
        let other = fixtures::oracle("another", 21, 9, 99);
        let new = new_store(&other, none.clone()).map_err(|e| e.to_string())?;
        match (self.create)(&place.path, new, &WriteOptions::default()) {
            Err(e) if e.kind() == ErrorKind::InvalidInput => {}
            Err(e) => return Err(format!("a store that exists: expected invalid input, got {e}")),
            Ok(_) => return Err("a store that exists would be written over".to_owned()),
        }
        let replace = WriteOptions::default().with_overwrite(true);
        drop(self.begin(&place, &other, &replace)?);
        place.holds_just_the_store()?;
        self.agrees(&place, oracle, &none, &written)
            .map_err(|e| format!("after a writer that would replace it was dropped: {e}"))?;
        let written = write(&other, &replace)?;
        place.holds_just_the_store()?;
        self.agrees(&place, &other, &none, &written)
            .map_err(|e| format!("after it was replaced: {e}"))
    }
}
