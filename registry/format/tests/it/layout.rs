//! Weights laid out as safetensors, against the reference implementation and a real run.

use std::collections::HashMap;
use std::path::Path;

use fineline_format::weights::{read_tensor, read_tensors};
use fineline_format::{Container, Dtype, Layout, gather};
use safetensors::tensor::TensorView;

#[test]
fn a_file_is_what_the_reference_implementation_writes() {
    // Given tensors of every dtype, tied by size and named out of order
    let dtypes = [
        (Dtype::F64, safetensors::Dtype::F64),
        (Dtype::F32, safetensors::Dtype::F32),
        (Dtype::F16, safetensors::Dtype::F16),
        (Dtype::Bf16, safetensors::Dtype::BF16),
        (Dtype::F8E4m3, safetensors::Dtype::F8_E4M3),
        (Dtype::F8E5m2, safetensors::Dtype::F8_E5M2),
        (Dtype::I64, safetensors::Dtype::I64),
        (Dtype::I32, safetensors::Dtype::I32),
        (Dtype::I16, safetensors::Dtype::I16),
        (Dtype::I8, safetensors::Dtype::I8),
        (Dtype::U64, safetensors::Dtype::U64),
        (Dtype::U32, safetensors::Dtype::U32),
        (Dtype::U16, safetensors::Dtype::U16),
        (Dtype::U8, safetensors::Dtype::U8),
        (Dtype::Bool, safetensors::Dtype::BOOL),
    ];
    let shapes: [&[u64]; 4] = [&[3, 2], &[], &[0, 7], &[5]];
    let mut ours = Vec::new();
    for (dtype, _) in dtypes {
        let named = shapes.iter().enumerate();
        ours.extend(named.map(|(i, shape)| (format!("{i}\u{e9}.{dtype}"), dtype, shape.to_vec())));
    }
    let values = [0; 64];
    let theirs = ours.iter().map(|(name, dtype, shape)| {
        let (_, theirs) = dtypes.iter().find(|(ours, _)| ours == dtype).unwrap();
        let shape: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
        let n = shape.iter().product::<usize>() * dtype.size_bytes() as usize;
        (name, TensorView::new(*theirs, shape, &values[..n]).unwrap())
    });
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    // When both lay them out
    let expected = safetensors::serialize(theirs, Some(metadata)).unwrap();
    let layout = Layout::new("m", ours.clone()).unwrap();
    // Then the files are the same.
    let file = [&layout.header[..], &vec![0; expected.len() - layout.header.len()]].concat();
    assert_eq!(file.len() as u64, layout.size_bytes);
    assert!(file == expected, "{}", String::from_utf8_lossy(&layout.header));
}

#[test]
fn a_real_step_in_three_pytorch_files_is_written_as_the_file_that_its_trainer_wrote() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    if !data.join("run_bin").is_dir() {
        println!("skipped: format/layout: there is no ../shared/data beside the clone");
        return;
    }
    let written = std::fs::read(data.join("run/step-000512/model.safetensors")).unwrap();
    let mut files = Vec::new();
    for n in 1..=3 {
        let name = format!("pytorch_model-0000{n}-of-00003.bin");
        let file = std::fs::read(data.join("run_bin/step-000512").join(&name)).unwrap();
        let tensors = read_tensors(&file, Container::TorchZip, &name).unwrap();
        files.push((file, tensors));
    }
    let all = files.iter().flat_map(|(_, tensors)| tensors);
    let layout = Layout::new(
        "m",
        all.map(|tensor| (tensor.name.clone(), tensor.dtype, tensor.shape.clone())),
    )
    .unwrap();
    let mut ours = layout.header.clone();
    for tensor in &layout.tensors {
        let (file, from) = files
            .iter()
            .find_map(|(file, tensors)| Some((file, tensors.iter().find(|from| from.name == tensor.name)?)))
            .unwrap();
        let mut values = vec![0; tensor.size_bytes() as usize];
        gather::fill(&mut values, 0, from, file, 0);
        assert!(values == read_tensor(file, from).unwrap(), "{}", tensor.name);
        ours.extend(values);
    }
    assert!(ours == written);
}
