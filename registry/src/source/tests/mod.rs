//! Sources read over real sockets and from real folders.

mod bucket;
mod folder;
mod http;
mod hub;
mod plan;
mod reach;
mod remote;
mod server;

use std::collections::{BTreeMap, HashMap};

use super::{Object, Origin, Place, Reach, SourceError, Wanted};

/// What opens the places of tests. It is to be seen nowhere.
const SECRET: &str = "hush";

/// A reach that allows these hosts.
fn allowing<T: AsRef<str>>(hosts: &[T]) -> Reach {
    Reach {
        roots: Vec::new(),
        allowed: hosts.iter().map(|host| host.as_ref().parse().unwrap()).collect(),
    }
}

impl Origin {
    /// Every checkpoint with its objects, but for those that are known.
    async fn list_all(&self, known: &HashMap<String, String>) -> Result<Vec<Place>, SourceError> {
        let names = &|names: &[&str]| vec![true; names.len()];
        self.list(Wanted { known, names }).await
    }
}

fn by_at(places: Vec<Place>) -> BTreeMap<String, Place> {
    places.into_iter().map(|place| (place.at.clone(), place)).collect()
}

fn paths(place: &Place) -> Vec<&str> {
    let objects = place.objects.as_ref().unwrap();
    objects.iter().map(|object| object.path.as_str()).collect()
}

fn object<'a>(place: &'a Place, path: &str) -> &'a Object {
    let objects = place.objects.as_ref().unwrap();
    objects.iter().find(|object| object.path == path).unwrap()
}

fn is_refused<T>(result: Result<T, SourceError>) -> bool {
    result.is_err_and(|error| matches!(error, SourceError::Refused(_)))
}

fn is_changed<T>(result: Result<T, SourceError>) -> bool {
    result.is_err_and(|error| matches!(error, SourceError::Changed(_)))
}
