//! `cellfeed generate`: a synthetic atlas as an .h5ad file.

use crate::atlas::{Atlas, AtlasOptions, Counts, Order};
use crate::interrupt;
use crate::people::progress_bar;
use cellfeed::hdf5::{Compression, H5adWriter, WriteOptions};
use cellfeed::{Error, Result, ValueType};
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How the chunks of X are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum CompressionName {
    /// Not at all: anndata's default, the largest and fastest to read.
    None,
    /// Deflate: what `write_h5ad(compression="gzip")` gives.
    Gzip,
    /// LZF: faster and weaker than gzip.
    Lzf,
}

/// Write a synthetic single-cell atlas to an .h5ad file.
///
/// The atlas imitates a large drug screen: plates one after the other, wells (drug x dose) in short
/// runs, cell lines at random inside, about 1,400 non-zeros a cell at 20,000 genes. Drugs, lines and
/// plates leave their mark on the counts, so a model can learn them. It is made and written in a
/// few hundred megabytes of memory however many cells there are, and equal options give equal
/// files. Obs columns: plate, sample (the well), sublibrary, drug, conc, cell_line, moa_fine,
/// gene_count, tscp_count.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:\n  \
    cellfeed generate atlas.h5ad\n  \
    cellfeed generate --cells 1000000 --compression gzip big.h5ad\n  \
    cellfeed generate --order sorted --genes 2000 --json worst-case.h5ad")]
pub(crate) struct GenerateArgs {
    /// The file to write, NAME.h5ad; it appears when it is complete.
    out: PathBuf,
    /// Cells. 200,000 take about 2.3 GB uncompressed.
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    cells: usize,
    /// Genes, at most 65,535.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    genes: usize,
    /// Seed of every random draw.
    #[arg(long, value_name = "SEED", default_value_t = 0, value_parser = crate::people::parse_seed)]
    seed: u64,
    /// Compression of X.
    #[arg(long, value_enum, default_value = "none")]
    compression: CompressionName,
    /// Level of gzip, 0 to 9.
    #[arg(long, value_name = "LEVEL", default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=9))]
    gzip_level: u32,
    /// Shuffle the bytes of a chunk before it is compressed: smaller files.
    #[arg(long)]
    shuffle: bool,
    /// Elements of a chunk of X [default: what h5py would choose].
    #[arg(long, value_name = "N")]
    chunk_elements: Option<u64>,
    /// Type of the counts: u8 to u64, i8 to i64, f32, f64; f16, which scipy does not read. A few
    /// counts are above 255, too large for u8 and i8.
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    value_type: ValueType,
    /// Plates.
    #[arg(long, value_name = "N", default_value_t = 14)]
    plates: usize,
    /// Cell lines, at most 256.
    #[arg(long, value_name = "N", default_value_t = 50)]
    lines: usize,
    /// Drugs, the vehicle control included.
    #[arg(long, value_name = "N", default_value_t = 380)]
    drugs: usize,
    /// Cells of one well that are next to each other, on average, in the order h5ad.
    #[arg(long, value_name = "N", default_value_t = 75)]
    run: usize,
    /// Order of the cells in the file.
    #[arg(long, value_enum, default_value = "h5ad")]
    order: Order,
    /// Replace the file if it exists, once the new one is complete.
    #[arg(long)]
    force: bool,
    /// Threads [default: one per core].
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
    /// Show no progress bar and no summary for people.
    #[arg(long, short)]
    quiet: bool,
}

/// What was written; the JSON that `--json` prints.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct GenerateReport {
    pub(crate) path: PathBuf,
    pub(crate) n_obs: u64,
    pub(crate) n_vars: u64,
    pub(crate) nnz: u64,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
}

/// Runs the command: shows progress on a terminal, prints the summary.
///
/// # Errors
/// Those of [`generate`], and [`ErrorKind::Io`](cellfeed::ErrorKind::Io) if the summary cannot be
/// printed.
pub(crate) fn run(args: &GenerateArgs) -> Result<()> {
    let bar = progress_bar(args.quiet, Some(args.cells as u64), "cells");
    let report = generate(args, |cells| bar.set_position(cells))?;
    bar.finish_and_clear();
    let text = if args.json {
        serde_json::to_string(&report)
            .map_err(|e| Error::internal("cannot write the report").caused_by(e))?
    } else if args.quiet {
        return Ok(());
    } else {
        format!(
            "{}: {} cells x {} genes, {} non-zeros ({:.0} a cell), {:.2} GB in {:.1} s",
            report.path.display(),
            report.n_obs,
            report.n_vars,
            report.nnz,
            report.nnz as f64 / report.n_obs.max(1) as f64,
            report.bytes as f64 / 1e9,
            report.seconds
        )
    };
    writeln!(std::io::stdout().lock(), "{text}").map_err(|e| Error::io("cannot print", e))
}

/// Makes an atlas and writes it; `progress` is told how many cells have been written.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](cellfeed::ErrorKind::InvalidInput) if an argument makes no sense or
/// the file exists, [`ErrorKind::Io`](cellfeed::ErrorKind::Io) if the disk fails. The file is then
/// as it was before.
pub(crate) fn generate(
    args: &GenerateArgs,
    progress: impl FnMut(u64) + Send,
) -> Result<GenerateReport> {
    let Some(threads) = args.threads else { return write(args, progress) };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|e| Error::internal("cannot start threads").caused_by(e))?;
    pool.install(|| write(args, progress))
}

/// Refuses names of other formats: the file would not be what its name says.
fn check_name(out: &Path) -> Result<()> {
    let ending = out.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    if ["h5ad", "h5"].iter().any(|known| ending.eq_ignore_ascii_case(known)) {
        return Ok(());
    }
    let h5ad = out.with_extension("h5ad");
    Err(Error::invalid_input(format!(
        "generate writes .h5ad; for another format generate {} and run `cellfeed convert` on that",
        h5ad.display()
    ))
    .with("file", out.display()))
}

fn write(args: &GenerateArgs, mut progress: impl FnMut(u64)) -> Result<GenerateReport> {
    let start = Instant::now();
    check_name(&args.out)?;
    if !args.force && args.out.symlink_metadata().is_ok() {
        return Err(Error::invalid_input("the file exists already; --force replaces it")
            .with("file", args.out.display()));
    }
    let atlas = Atlas::new(&AtlasOptions {
        cells: args.cells,
        genes: args.genes,
        plates: args.plates,
        lines: args.lines,
        drugs: args.drugs,
        order: args.order,
        run: args.run,
        seed: args.seed,
    })?;
    let mut blocks = atlas.blocks().peekable();
    // The first block tells how long the chunks should be.
    let expected = blocks.peek().map_or(0, |block| {
        let (nnz, rows) = (block.indices.len() as u128, block.depths.len() as u128);
        u64::try_from(nnz * args.cells as u128 / rows.max(1)).unwrap_or(u64::MAX)
    });
    let compression = match args.compression {
        CompressionName::None => Compression::None,
        CompressionName::Gzip => Compression::Gzip { level: args.gzip_level },
        CompressionName::Lzf => Compression::Lzf,
    };
    let mut options = WriteOptions::default()
        .with_compression(compression)
        .with_shuffle(args.shuffle)
        .with_value_type(args.value_type)
        .with_expected_nnz(expected)
        .with_overwrite(args.force);
    if let Some(elements) = args.chunk_elements {
        options = options.with_chunk_elements(elements);
    }
    let genes = u32::try_from(args.genes).map_err(|_| Error::invalid_input("too many genes"))?;
    let mut writer = H5adWriter::create(&args.out, genes, &options)?;
    let mut counts = Counts::default();
    for block in blocks {
        interrupt::check()?;
        writer.append(&block.indptr, &block.indices, &block.data)?;
        counts.take(&block);
        progress(writer.n_obs());
    }
    if writer.n_obs() != args.cells as u64 {
        return Err(Error::internal("a block of cells could not be made"));
    }
    let categories = atlas.categories();
    let written = writer.finish(&atlas.obs(&categories, &counts), &atlas.var())?;
    Ok(GenerateReport {
        path: args.out.clone(),
        n_obs: written.n_obs,
        n_vars: written.n_vars,
        nnz: written.nnz,
        bytes: written.bytes,
        seconds: start.elapsed().as_secs_f64(),
    })
}
