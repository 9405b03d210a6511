//! The kernels of `candle/cuda` without a card: their sources compiled as C++, with threads that are simulated
//! (`kernels/emulated.h`), against plain loops in double precision (`kernels/test.cpp`).

use std::path::Path;
use std::process::Command;

#[test]
fn kernels_compute_what_plain_loops_do() {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    if Command::new(&compiler).arg("--version").output().is_err() {
        println!("skipped: evaluator/kernels: there is no C++ compiler");
        return;
    }
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels");
    let out = tempfile::tempdir().unwrap();
    let program = out.path().join("kernels");
    let compiled = Command::new(&compiler)
        .args([
            "-std=c++17",
            "-O2",
            "-fno-strict-aliasing",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-unknown-pragmas",
        ])
        .arg("-I")
        .arg(&dir)
        .arg("-o")
        .arg(&program)
        .arg(dir.join("test.cpp"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&compiled.stderr);
    assert!(compiled.status.success(), "{said}");
    let ran = Command::new(&program).output().unwrap();
    let (said, failed) = (
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr),
    );
    println!("{said}");
    assert!(ran.status.success(), "{failed}");
    assert_eq!(said.lines().count(), 21, "{said}");
}
