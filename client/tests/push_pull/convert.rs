//! Weights pulled as safetensors from a registry that sends what it should not.

use std::fs;
use std::path::Path;

use fineline_api::{Reference, Tensor};
use fineline_client::{Error, PullOptions, PullOutcome, PushOptions, WeightsForm, pull};
use fineline_format::weights::{read_tensor, read_tensors, tensor_digest, weights_digest};
use fineline_format::{Container, Digest, frame};

use super::craft::{Zip, float_tensor, state_dict};
use super::fake::Registry;
use super::{noise, push_quietly, run};

const N: i64 = 1 << 18;

/// A PyTorch file of two tensors of 1 MiB, one of which is a view that is not in row-major order.
fn torch_file() -> Vec<u8> {
    let pickle = state_dict(&[
        ("a", float_tensor("0", N, 0, &[1 << 9, 1 << 9], &[1 << 9, 1])),
        ("b", float_tensor("1", N, 0, &[1 << 9, 1 << 9], &[1, 1 << 9])),
    ]);
    let mut zip = Zip::default();
    zip.entry("m/data.pkl", &pickle);
    for seed in 0..2 {
        zip.entry(&format!("m/data/{seed}"), &noise(4 << 18, seed));
    }
    zip.finish()
}

fn listed(file: &[u8]) -> Vec<Tensor> {
    let tensors = read_tensors(&file, Container::TorchZip, "m").unwrap();
    let list = tensors.into_iter().map(|tensor| Tensor {
        digest: tensor_digest(&file, &tensor, &|_, _| None).unwrap(),
        dtype: tensor.dtype.to_string(),
        path: "pytorch_model.bin".to_owned(),
        name: tensor.name,
        shape: tensor.shape,
    });
    list.collect()
}

fn digest_of(tensors: &[Tensor]) -> Digest {
    let row = |tensor: &Tensor| {
        let dtype = tensor.dtype.parse().unwrap();
        (tensor.name.clone(), dtype, tensor.shape.clone(), tensor.digest)
    };
    weights_digest(tensors.iter().map(row)).unwrap()
}

/// A registry with that file as step 7.
async fn registry_with(file: &[u8]) -> Registry {
    let (registry, dir) = (Registry::start().await, tempfile::tempdir().unwrap());
    fs::write(dir.path().join("pytorch_model.bin"), file).unwrap();
    fs::write(dir.path().join("config.json"), "{}").unwrap();
    push_quietly(&registry, 7, dir.path(), &PushOptions::default())
        .await
        .unwrap();
    let tensors = listed(file);
    registry.world().weights = Some((digest_of(&tensors), tensors));
    registry
}

async fn pull_as_safetensors(registry: &Registry, to: &Path) -> Result<PullOutcome, Error> {
    let options = PullOptions {
        weights: WeightsForm::Safetensors,
        ..PullOptions::default()
    };
    pull(&registry.client(), &run(), &Reference::Step(7), to, &options, |_| {}).await
}

fn assert_is(to: &Path, stored: &[u8]) {
    let file = fs::read(to.join("model.safetensors")).unwrap();
    let ours = read_tensors(&file, Container::Safetensors, "m").unwrap();
    let theirs = read_tensors(&stored, Container::TorchZip, "m").unwrap();
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours.name, theirs.name);
        assert!(read_tensor(&file, ours).unwrap() == read_tensor(&stored, theirs).unwrap());
    }
}

#[tokio::test]
async fn a_chunk_that_comes_as_other_bytes_is_asked_for_again_wherever_it_belongs() {
    // Given a chunk of the directory, of a tensor, of a view, of which every frame but a verified one is of other bytes
    let file = torch_file();
    for n in 0..5 {
        let (registry, to) = (registry_with(&file).await, tempfile::tempdir().unwrap());
        let victim = {
            let world = registry.world();
            let stored = world.steps[&7].1.iter().find(|file| file.path == "pytorch_model.bin");
            stored.unwrap().chunks[n]
        };
        let other = noise(victim.size_bytes as usize, 99);
        registry.world().swapped = Some((victim.digest, frame::encode_raw(&other).into()));
        // When the step is pulled
        pull_as_safetensors(&registry, to.path()).await.unwrap();
        // Then none of them was written.
        assert_is(to.path(), &file);
        let verified = registry.world().verified.clone();
        assert!(
            verified.iter().all(|digest| *digest == victim.digest),
            "{n}: {verified:?}"
        );
        assert!(!verified.is_empty(), "{n}");
    }
}

#[tokio::test]
async fn a_registry_whose_tensors_are_others_than_it_lists_gives_no_file() {
    let file = torch_file();
    let (registry, to) = (registry_with(&file).await, tempfile::tempdir().unwrap());
    let right = registry.world().weights.clone().unwrap();
    let mut other = right.1.clone();
    other[1].digest = Digest::of(b"other");
    // One list does not have the weights digest, one has it and is of other values.
    for (digest, expected) in [(right.0, "the list of tensors"), (digest_of(&other), "tensor `b` of")] {
        registry.world().weights = Some((digest, other.clone()));
        let error = pull_as_safetensors(&registry, to.path()).await.unwrap_err();
        assert!(matches!(&error, Error::Corrupt { .. }), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
        let names = fs::read_dir(to.path())
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path());
        assert!(
            names
                .into_iter()
                .all(|path| path.extension().unwrap() == "fineline-partial"),
            "nothing has a name"
        );
    }
    // And when it lists what there is, what was right already is kept.
    registry.world().weights = Some(right);
    let pulled = pull_as_safetensors(&registry, to.path()).await.unwrap();
    assert_is(to.path(), &file);
    assert!(
        pulled.kept_bytes == 1 << 20 || pulled.kept_bytes == 2 << 20,
        "{pulled:?}"
    );
}

#[tokio::test]
async fn wrong_chunks_end_a_pull_without_a_file() {
    let file = torch_file();
    let (registry, to) = (registry_with(&file).await, tempfile::tempdir().unwrap());
    registry.world().wrong_chunk = Some(frame::encode_raw(b"wrong").into());
    let error = pull_as_safetensors(&registry, to.path()).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    assert!(!to.path().join("model.safetensors").exists() && !to.path().join("config.json").exists());
    registry.world().wrong_chunk = None;
    pull_as_safetensors(&registry, to.path()).await.unwrap();
    assert_is(to.path(), &file);
}
