//! The command line `fineline`. All of it stands in `cli`; everything that it does goes through the library.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
