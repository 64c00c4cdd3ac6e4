//! The `narthex` program.

fn main() -> std::process::ExitCode {
    narthex::cli::run(std::env::args_os())
}
