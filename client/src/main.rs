//! The command line `fineline`. All of it stands in `cli`; everything that it does goes through the library.

fn main() -> std::process::ExitCode {
    fineline_client::cli::main()
}
