//! One run of `cellfeed stream`, or of the bare limits, in a process of its own.

use crate::stores::{Programs, Store, run_json};
use cellfeed::{Error, Result};
use rustix::fs::{Advice, fadvise};
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::process::Command;

/// A strategy with its sizes.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) name: String,
    strategy: &'static str,
    block_size: u64,
    fetch_factor: u64,
}

/// Minibatches of 64 cells throughout.
const BATCH_SIZE: u64 = 64;

/// What is compared: the block sizes and fetch factors of the published tables, file order, and true
/// random sampling.
pub(crate) fn settings() -> Vec<Setting> {
    let block = |block_size, fetch_factor| Setting {
        name: format!("b{block_size}-f{fetch_factor}"),
        strategy: "block-shuffling",
        block_size,
        fetch_factor,
    };
    let other = |name: &str, strategy| Setting {
        name: name.to_owned(),
        strategy,
        block_size: 16,
        fetch_factor: 256,
    };
    vec![
        block(16, 256),
        block(16, 16),
        block(64, 64),
        block(256, 256),
        other("streaming", "streaming"),
        other("true-random", "true-random"),
    ]
}

impl Setting {
    fn arguments(&self, command: &mut Command) {
        command.args(["--batch-size", &BATCH_SIZE.to_string()]);
        command.args(["--block-size", &self.block_size.to_string()]);
        command.args(["--fetch-factor", &self.fetch_factor.to_string()]);
    }

    fn stream(&self, programs: &Programs, store: &Store) -> Command {
        let mut command = Command::new(&programs.cellfeed);
        command.arg("stream").arg(&store.path).args(["--strategy", self.strategy]);
        self.arguments(&mut command);
        command.args(["--memory", "2GiB", "--json"]);
        command
    }
}

/// Which run comes when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    pub(crate) round: u32,
    pub(crate) store: usize,
    pub(crate) setting: usize,
    pub(crate) cold: bool,
}

/// What a run gave.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) turn: Turn,
    pub(crate) load: f64,
    pub(crate) cells_per_second: f64,
    pub(crate) cells_per_cpu_second: f64,
    pub(crate) bytes_read_per_cell: f64,
    pub(crate) values_per_cell: f64,
    pub(crate) peak_rss_bytes: f64,
    /// Cells a second that the slowest of bare reading, decoding and copying allows; not for every
    /// strategy.
    pub(crate) limit: Option<f64>,
    /// The reports themselves.
    pub(crate) stream: Value,
    pub(crate) roofline: Option<Value>,
}

/// Fisher and Yates with splitmix64.
pub(crate) fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed;
    for i in (1..items.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bound = u64::try_from(i + 1).unwrap_or(1);
        items.swap(i, usize::try_from((z ^ (z >> 31)) % bound).unwrap_or(0));
    }
}

/// Stops unless all stores give the same minibatches for each setting.
pub(crate) fn compare_digests(
    programs: &Programs,
    stores: &[Store],
    settings: &[Setting],
) -> Result<()> {
    for setting in settings {
        let mut first: Option<(String, &str)> = None;
        for store in stores {
            let mut command = setting.stream(programs, store);
            command.args(["--digest", "--obs", "plate", "--obs", "cell_line"]);
            let report = run_json(&mut command)?;
            let digest = report["digest"].as_str().unwrap_or_default().to_owned();
            match &first {
                None => first = Some((digest, &store.name)),
                Some((expected, of)) if *expected != digest => {
                    return Err(Error::corrupt(format!(
                        "{}: {} gives digest {digest}, but {of} gave {expected}",
                        setting.name, store.name
                    )));
                }
                Some(_) => {}
            }
        }
        if let Some((digest, _)) = first {
            eprintln!("{:16} digest {digest} from every format", setting.name);
        }
    }
    Ok(())
}

/// The load of the machine over the last minute.
fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

/// Fills the page cache with a store, or empties it.
fn prepare(store: &Store, cold: bool) -> Result<()> {
    let mut buffer = vec![0u8; 1 << 20];
    for path in &store.files {
        let io = |e: std::io::Error| Error::io("cannot read", e).with("file", path.display());
        let mut file = File::open(path).map_err(io)?;
        if cold {
            file.sync_all().map_err(io)?;
            fadvise(&file, 0, None, Advice::DontNeed).map_err(|e| io(e.into()))?;
        } else {
            while file.read(&mut buffer).map_err(io)? > 0 {}
        }
    }
    Ok(())
}

/// Runs the loader, then the bare limits for the same bytes.
pub(crate) fn measure(
    programs: &Programs,
    store: &Store,
    setting: &Setting,
    turn: Turn,
    seconds: Option<f64>,
) -> Result<Run> {
    prepare(store, turn.cold)?;
    let load = load();
    let mut command = setting.stream(programs, store);
    if let Some(seconds) = seconds {
        command.args(["--seconds", &seconds.to_string()]);
    }
    let stream = run_json(&mut command)?;
    // The limits are planned for block shuffling.
    let roofline = if setting.strategy == "block-shuffling" {
        prepare(store, turn.cold)?;
        let mut command = Command::new(&programs.roofline);
        command.arg(&store.path);
        setting.arguments(&mut command);
        if turn.cold {
            command.arg("--cold");
        }
        if seconds.is_some() {
            // As many fetches as the loader had time for.
            let cells = stream["n_cells"].as_f64().unwrap_or(0.0);
            let fetch = (BATCH_SIZE * setting.fetch_factor) as f64;
            command.args(["--fetches", &(cells / fetch).ceil().to_string()]);
        }
        Some(run_json(command.arg("--json"))?)
    } else {
        None
    };
    let number = |key: &str| stream[key].as_f64().unwrap_or(f64::NAN);
    let cells = number("n_cells");
    Ok(Run {
        turn,
        load,
        cells_per_second: number("cells_per_second"),
        cells_per_cpu_second: cells / number("cpu_seconds"),
        bytes_read_per_cell: number("bytes_read") / cells,
        values_per_cell: number("nnz") / cells,
        peak_rss_bytes: number("peak_rss_bytes"),
        limit: roofline.as_ref().and_then(|r| r["cells_per_second"].as_f64()),
        stream,
        roofline,
    })
}
