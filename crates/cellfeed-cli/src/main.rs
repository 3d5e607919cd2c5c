//! The program `cellfeed`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(cellfeed_cli::main_with_args(std::env::args_os()))
}
