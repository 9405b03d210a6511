//! What places become, decided from names, sizes and digests.

use std::collections::HashMap;

use fineline_api::StepMapping;
use fineline_format::Digest;

use crate::source::plan::{Planned, Rules, Verdict, matches, plan, wanted};
use crate::source::{Object, Place, SourceError};

fn object(path: &str, size_bytes: u64) -> Object {
    Object {
        path: path.to_owned(),
        key: path.to_owned(),
        size_bytes,
        version: "1".to_owned(),
        sha256: Some(Digest::of(format!("{path}{size_bytes}").as_bytes())),
    }
}

fn place(name: &str, files: &[(&str, u64)]) -> Place {
    Place {
        name: name.to_owned(),
        at: name.to_owned(),
        version: "v".to_owned(),
        objects: Some(files.iter().map(|(path, size)| object(path, *size)).collect()),
        problem: None,
    }
}

fn planned(places: Vec<Place>, mapping: &StepMapping) -> Vec<Planned> {
    let rules = Rules {
        mapping,
        run_tokens_per_step: None,
        marker: None,
        keep_optimizer: false,
    };
    plan(places, &HashMap::new(), &rules)
}

const WHOLE: &[(&str, u64)] = &[("config.json", 2), ("model.safetensors", 9)];

#[test]
fn patterns_match_whole_names() {
    for (pattern, name, expected) in [
        ("ckpt_*", "ckpt_000", true),
        ("ckpt_*", "main", false),
        ("*B", "100.66B", true),
        ("a*c*e", "abcde", true),
        ("a*c*e", "abcd", false),
        ("main", "main", true),
        ("main", "mainly", false),
        ("*", "", true),
    ] {
        assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
    }
}

#[test]
fn places_come_by_step_and_one_without_a_step_is_told() {
    let places = vec![
        place("step13000", WHOLE),
        place("main", WHOLE),
        place("step3000", WHOLE),
    ];
    let planned = planned(places, &StepMapping::default());
    let steps: Vec<_> = planned.iter().map(|one| one.step).collect();
    assert_eq!(steps, [Some(3000), Some(13000), None]);
    assert!(matches!(&planned[2].verdict, Verdict::Ignored(why) if why.contains("step")));
}

#[test]
fn only_names_that_become_steps_are_wanted() {
    let mapping = StepMapping {
        select: vec!["s*".to_owned()],
        ..StepMapping::default()
    };
    let rules = Rules {
        mapping: &mapping,
        run_tokens_per_step: None,
        marker: None,
        keep_optimizer: false,
    };
    let names = [
        "stage1-step5-tokens4B",
        "stage2-step5-tokens4B",
        "some",
        "global_step7",
        "stage1-step6-tokens5B",
    ];
    assert_eq!(wanted(&names, &rules), [true, false, false, false, true]);
}

#[test]
fn what_can_not_be_listed_is_not_what_is_missing() {
    let problem = SourceError::NotFound("gone".to_owned());
    let mut unlisted = place("step-1", &[]);
    (unlisted.objects, unlisted.problem) = (None, Some(problem.clone()));
    let planned = planned(vec![unlisted], &StepMapping::default());
    assert_eq!(planned[0].verdict, Verdict::Unlisted(problem));
}

#[test]
fn a_half_uploaded_place_waits_and_says_for_what() {
    let shards = [
        ("model-00001-of-00003.safetensors", 5),
        ("model-00003-of-00003.safetensors", 5),
    ];
    let none = [("config.json", 2), ("README.md", 3)];
    let empty = [("config.json", 2), ("pytorch_model.bin", 0)];
    for (files, word) in [
        (&shards[..], "shard 2"),
        (&none[..], "no weights"),
        (&empty[..], "empty"),
        (&[], "no files"),
    ] {
        let planned = planned(vec![place("step-1", files)], &StepMapping::default());
        assert!(
            matches!(&planned[0].verdict, Verdict::Waiting(why) if why.contains(word)),
            "{:?}",
            planned[0].verdict
        );
    }
    let many = [("model-00001-of-18446744073709551615.safetensors", 5)];
    let planned = planned(vec![place("step-1", &many)], &StepMapping::default());
    assert!(matches!(&planned[0].verdict, Verdict::Waiting(why) if why.contains("1 of ")));
}

#[test]
fn two_places_of_one_step_bring_nothing() {
    let planned = planned(
        vec![place("step-7", WHOLE), place("global_step7", WHOLE)],
        &StepMapping::default(),
    );
    assert!(
        planned
            .iter()
            .all(|one| matches!(&one.verdict, Verdict::Failed(why) if why.contains("step 7")))
    );
}

#[test]
fn equal_weights_are_told_before_anything_is_read() {
    let other = [("config.json", 3), ("model.safetensors", 9)];
    let places = vec![
        place("step1", WHOLE),
        place("step2", &other),
        place("step3", &[("model.safetensors", 8)]),
    ];
    let planned = planned(places, &StepMapping::default());
    assert!(planned[0].warnings[0].contains("`step2`"), "{:?}", planned[0].warnings);
    assert!(planned[1].warnings[0].contains("`step1`"));
    assert!(planned[2].warnings.is_empty());
}

#[test]
fn a_subfolder_is_the_checkpoint_and_what_is_no_part_of_a_model_stays_out() {
    let files = [
        ("w_step5/config.json", 2),
        ("w_step5/pytorch_model.bin", 9),
        ("w_step5/optimizer.pt", 99),
        ("w_step5/.cache/x", 1),
        ("README.md", 4),
    ];
    let mapping = StepMapping {
        subfolder: Some("w_{name}".to_owned()),
        ..StepMapping::default()
    };
    let planned = planned(vec![place("step5", &files)], &mapping);
    let paths: Vec<_> = planned[0].files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["config.json", "pytorch_model.bin"]);
    assert_eq!(planned[0].verdict, Verdict::Whole);
}

#[test]
fn a_step_from_rounded_tokens_is_snapped_and_says_both() {
    let mapping = StepMapping {
        tokens_per_step: Some(4_194_304),
        step_multiple: Some(1_000),
        ..StepMapping::default()
    };
    let one = &planned(vec![place("OpenLLaMA-Reproduce-100.66B", WHOLE)], &mapping)[0];
    assert_eq!(one.step, Some(24_000));
    assert_eq!(one.tokens, Some(24_000 * 4_194_304));
    assert_ne!(one.inferred.map(|inferred| inferred.unsnapped), Some(24_000));
}

#[test]
fn stages_are_runs_of_their_own() {
    let places = vec![
        place("stage1-step10-tokens1B", WHOLE),
        place("stage2-ingredient1-step10-tokens1B", WHOLE),
    ];
    let planned = planned(places, &StepMapping::default());
    assert_eq!(planned[0].verdict, Verdict::Whole);
    assert!(matches!(&planned[1].verdict, Verdict::Ignored(why) if why.contains("stage")));
}
