//! Compiles the kernels for NVIDIA's cards, where the feature `cuda` asks for them, to PTX that the driver compiles for its card.

#[cfg(not(feature = "cuda"))]
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}

#[cfg(feature = "cuda")]
fn main() -> Result<(), String> {
    use std::path::PathBuf;
    use std::process::Command;

    const SOURCES: &str = "src/candle/cuda/kernels";
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={SOURCES}");
    for variable in ["NVCC", "CUDA_HOME", "PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let set = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
    let nvcc = set("NVCC").or_else(|| set("CUDA_HOME").map(|home| home.join("bin/nvcc")));
    let nvcc = nvcc.unwrap_or_else(|| "nvcc".into());
    let run = |command: &mut Command| -> Result<String, String> {
        let output = command.output().map_err(|error| {
            format!(
                "`{}` can't be run: {error}: name CUDA's folder in CUDA_HOME, or take evaluator/cuda/build.sh",
                nvcc.display()
            )
        })?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(format!("{command:?}: {}{}", text(&output.stdout), text(&output.stderr))),
        }
    };
    // "Cuda compilation tools, release 13.0, V13.0.88": libraries and driver have to be of that version or a later one.
    let version = run(Command::new(&nvcc).arg("--version"))?;
    let release = version.split("release ").nth(1).and_then(|rest| rest.split(',').next());
    let release = release.ok_or_else(|| format!("`{}` says no release: {version}", nvcc.display()))?;
    println!("cargo::rustc-env=FINELINE_CUDA_RELEASE={release}");
    let ptx = set("OUT_DIR").ok_or("cargo sets OUT_DIR")?.join("kernels.ptx");
    run(Command::new(&nvcc)
        .args(["-ptx", "-std=c++17", "-O3", "-arch=compute_80", "-o"])
        .arg(ptx)
        .arg(format!("{SOURCES}/kernels.cu")))?;
    Ok(())
}
