//! Repositories of a server that speaks the Hub's protocol.
//!
//! **Invariant:** what is listed and read is of a commit, never of a branch, which moves; the next page of a list is asked
//! of the endpoint alone.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::OnceLock;

use bytes::Bytes;
use fineline_api::source::{HubCheckpoints, PUBLIC_HUB};
use fineline_format::Digest;
use futures::StreamExt;
use reqwest::Url;
use reqwest::header::{HeaderMap, LINK};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::http::{Http, Listed};
use super::{AllowedHost, Object, Place, SourceError, Wanted, is_plain_path, told};

/// Checkpoints that are listed at once.
const N_AT_ONCE: usize = 4;

/// The most bytes of an answer, the most pages of a list of files, and the most files of a checkpoint.
const MAX_ANSWER_BYTES: usize = 32 << 20;
const MAX_PAGES: usize = 200;
const MAX_FILES: usize = 100_000;

/// The most branches and tags.
const MAX_REFS: usize = 20_000;

/// Some repositories of a Hub.
#[derive(Debug)]
pub(super) struct Hub {
    http: Http,
    repositories: Vec<Repository>,
    checkpoints: HubCheckpoints,
}

/// `NAMESPACE/NAME[@REVISION]`.
#[derive(Debug, Clone)]
struct Repository {
    id: String,
    revision: Option<String>,
}

/// A checkpoint before its files are listed.
#[derive(Debug)]
struct Found {
    name: String,
    at: String,
    id: String,
    revision: Revision,
}

#[derive(Debug)]
enum Revision {
    Commit(String),
    Named(String),
}

#[derive(Deserialize)]
struct Refs {
    branches: Vec<Ref>,
    #[serde(default)]
    tags: Vec<Ref>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ref {
    name: String,
    target_commit: String,
}

#[derive(Deserialize)]
struct Info {
    sha: String,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    oid: String,
    #[serde(default)]
    size: u64,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

impl Repository {
    fn parse(text: &str) -> Result<Self, SourceError> {
        let (id, revision) = match text.split_once('@') {
            Some((id, revision)) => (id, Some(revision)),
            None => (text, None),
        };
        let is_part = |part: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
            !part.is_empty() && part.len() <= 96 && !part.starts_with('.') && part.chars().all(plain)
        };
        let is_id = id
            .split_once('/')
            .is_some_and(|(namespace, name)| is_part(namespace) && is_part(name));
        if is_id && revision.is_none_or(is_plain_path) {
            return Ok(Self {
                id: id.to_owned(),
                revision: revision.map(str::to_owned),
            });
        }
        let text = told(text);
        Err(SourceError::Refused(format!(
            "`{text}` is no repository: write it as `NAMESPACE/NAME` or `NAMESPACE/NAME@REVISION`"
        )))
    }

    /// `NAMESPACE/NAME[@REVISION]` again.
    fn at(&self) -> String {
        let revision = self.revision.as_deref();
        revision.map_or_else(|| self.id.clone(), |revision| format!("{}@{revision}", self.id))
    }

    fn found(&self) -> Found {
        let revision = self.revision.as_deref();
        let (_, name) = self.id.split_once('/').expect("parsed as two parts");
        Found {
            name: name.to_owned(),
            at: self.at(),
            id: self.id.clone(),
            revision: Revision::Named(revision.unwrap_or("main").to_owned()),
        }
    }
}

impl Hub {
    pub(super) fn open(
        endpoint: Option<&str>,
        repositories: &[String],
        checkpoints: Option<HubCheckpoints>,
        secret: Option<&str>,
        allowed: &[AllowedHost],
    ) -> Result<Self, SourceError> {
        let repositories: Vec<_> = repositories
            .iter()
            .map(|text| Repository::parse(text))
            .collect::<Result<_, _>>()?;
        let refused = |what: String| Err(SourceError::Refused(what));
        let mut seen = HashSet::new();
        if let Some(twice) = repositories.iter().find(|repository| !seen.insert(repository.at())) {
            return refused(format!(
                "`{}` stands twice among the repositories: name it once",
                twice.id
            ));
        }
        let checkpoints = checkpoints.unwrap_or(match repositories.len() {
            1 => HubCheckpoints::Branches,
            _ => HubCheckpoints::Repositories,
        });
        match (checkpoints, repositories.as_slice()) {
            (_, []) => return refused("a Hub's source has no repository: name one as `NAMESPACE/NAME`".to_owned()),
            (HubCheckpoints::Branches, [one]) if one.revision.is_none() => {}
            (HubCheckpoints::Branches, [one]) => {
                return refused(format!(
                    "`{}` names one revision where every branch is a checkpoint: leave out the `@`, or take repositories \
                     as checkpoints",
                    one.at()
                ));
            }
            (HubCheckpoints::Branches, _) => {
                return refused("branches are checkpoints of one repository: give each its own source".to_owned());
            }
            (HubCheckpoints::Repositories, _) => {}
        }
        Ok(Self {
            http: Http::new(endpoint.unwrap_or(PUBLIC_HUB), secret, allowed)?,
            repositories,
            checkpoints,
        })
    }

    #[cfg(test)]
    pub(super) fn hurry(&mut self) {
        self.http.hurry();
    }

    pub(super) async fn list(&self, wanted: Wanted<'_>) -> Result<Vec<Place>, SourceError> {
        let found = match (self.checkpoints, self.repositories.as_slice()) {
            (HubCheckpoints::Branches, [repository, ..]) => self.branches(&repository.id).await?,
            _ => self.revisions(),
        };
        let names: Vec<&str> = found.iter().map(|found| found.name.as_str()).collect();
        let is_wanted = (wanted.names)(&names);
        // Once the server wants to be left alone, it is: what is left waits for the next time.
        let halted = OnceLock::new();
        let looks: Vec<_> = found
            .into_iter()
            .zip(is_wanted)
            .map(|(found, is_wanted)| Box::pin(self.look(found, is_wanted, wanted.known, &halted)))
            .collect();
        let looked: Vec<_> = futures::stream::iter(looks).buffered(N_AT_ONCE).collect().await;
        let is_whole = |error: &SourceError| matches!(error, SourceError::Refused(_) | SourceError::Unavailable { .. });
        // Of what is not wanted nothing was asked.
        let is_there = |place: &Place| place.objects.is_some() || wanted.known.get(&place.at) == Some(&place.version);
        let is_any_there = looked.iter().any(|(_, place)| place.as_ref().is_ok_and(is_there));
        let mut places = Vec::with_capacity(looked.len());
        for (found, place) in looked {
            match place {
                Ok(place) => places.push(place),
                // What is wrong with the server is wrong with each.
                Err(error) if is_whole(&error) && !is_any_there => return Err(error),
                Err(error) => places.push(Place {
                    name: found.name,
                    at: found.at,
                    version: String::new(),
                    objects: None,
                    problem: Some(error),
                }),
            }
        }
        Ok(places)
    }

    pub(super) async fn place(&self, at: &str) -> Result<Place, SourceError> {
        self.listed(&Repository::parse(at)?.found(), true, &HashMap::new())
            .await
    }

    pub(super) async fn read(&self, object: &Object, range: Range<u64>) -> Result<Bytes, SourceError> {
        // As `listed` wrote it.
        let parts: Vec<_> = object.key.splitn(5, '/').collect();
        let [namespace, name, resolve, commit, path] = parts[..] else {
            let key = told(&object.key);
            return Err(SourceError::Changed(format!(
                "`{key}` is no file of a Hub: list the source again"
            )));
        };
        let segments = [namespace, name, resolve, commit].into_iter().chain(path.split('/'));
        let sha256 = object.sha256.map(|digest| digest.to_hex());
        let listed = Listed {
            size_bytes: object.size_bytes,
            commit,
            etag: sha256.as_deref().unwrap_or(&object.version),
        };
        self.http.read(&self.url(segments), range, listed).await
    }

    /// Every repository at its revision. Of one that stands there at several, the revisions are what tells them apart.
    fn revisions(&self) -> Vec<Found> {
        let mut n_times: HashMap<&str, usize> = HashMap::new();
        for repository in &self.repositories {
            *n_times.entry(&repository.id).or_default() += 1;
        }
        let found = self.repositories.iter().map(|repository| {
            let mut found = repository.found();
            if let (2.., Revision::Named(revision)) = (n_times[repository.id.as_str()], &found.revision) {
                found.name.clone_from(revision);
            }
            found
        });
        found.collect()
    }

    /// Every branch, and every tag that has another name.
    async fn branches(&self, id: &str) -> Result<Vec<Found>, SourceError> {
        let url = self.url(["api", "models"].into_iter().chain(id.split('/')).chain(["refs"]));
        let (Refs { branches, tags }, _) = self.json(&url).await?;
        if branches.len() + tags.len() > MAX_REFS {
            let message = format!("`{id}` has more than {MAX_REFS} branches and tags, the most of a source");
            return Err(SourceError::Refused(message));
        }
        let mut seen = HashSet::new();
        let refs = branches.into_iter().chain(tags);
        let named = refs.filter(|Ref { name, .. }| is_plain_path(name) && seen.insert(name.clone()));
        let found = named.map(|Ref { name, target_commit }| Found {
            at: format!("{id}@{name}"),
            name,
            id: id.to_owned(),
            revision: Revision::Commit(target_commit),
        });
        Ok(found.collect())
    }

    async fn look(
        &self,
        found: Found,
        is_wanted: bool,
        known: &HashMap<String, String>,
        halted: &OnceLock<SourceError>,
    ) -> (Found, Result<Place, SourceError>) {
        let is_free = match &found.revision {
            Revision::Commit(commit) => !is_wanted || known.get(&found.at) == Some(commit),
            Revision::Named(_) => false,
        };
        let place = match halted.get() {
            Some(error) if !is_free => Err(error.clone()),
            _ => self.listed(&found, is_wanted, known).await,
        };
        if let Err(error @ SourceError::Unavailable { .. }) = &place {
            halted.get_or_init(|| error.clone());
        }
        (found, place)
    }

    async fn listed(
        &self,
        found: &Found,
        is_wanted: bool,
        known: &HashMap<String, String>,
    ) -> Result<Place, SourceError> {
        let commit = match &found.revision {
            Revision::Commit(commit) => commit.clone(),
            Revision::Named(name) => {
                let url = self.api(&found.id, "revision", name);
                self.json::<Info>(&url).await?.0.sha
            }
        };
        if commit.is_empty() || commit.len() > 64 || !commit.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let (at, commit) = (told(&found.at), told(&commit));
            return Err(SourceError::NotFound(format!(
                "`{at}` is at `{commit}`, which is no commit"
            )));
        }
        let (objects, problem) = if !is_wanted || known.get(&found.at) == Some(&commit) {
            (None, None)
        } else {
            let (objects, problem) = self.tree(&found.id, &commit).await?;
            (Some(objects), problem)
        };
        Ok(Place {
            name: found.name.clone(),
            at: found.at.clone(),
            version: commit,
            objects,
            problem: problem.map(SourceError::Refused),
        })
    }

    /// The files of a commit, and what is wrong with one of them.
    async fn tree(&self, id: &str, commit: &str) -> Result<(Vec<Object>, Option<String>), SourceError> {
        let mut url = self.api(id, "tree", commit);
        url.set_query(Some("recursive=true"));
        let (mut objects, mut problem) = (Vec::new(), None);
        for _ in 0..MAX_PAGES {
            let (entries, headers) = self.json::<Vec<Entry>>(&url).await?;
            for entry in entries.into_iter().filter(|entry| entry.kind == "file") {
                match object(id, commit, entry) {
                    Ok(object) => objects.push(object),
                    Err(what) => problem = problem.or(Some(what)),
                }
            }
            if objects.len() > MAX_FILES {
                let message = format!("`{id}` has more than {MAX_FILES} files at `{commit}`, the most of a checkpoint");
                return Err(SourceError::Refused(message));
            }
            match next_page(&url, &headers)? {
                Some(next) => url = next,
                None => {
                    objects.sort_by(|a, b| a.path.cmp(&b.path));
                    return Ok((objects, problem));
                }
            }
        }
        let message = format!("the list of `{id}`'s files at `{commit}` has more than {MAX_PAGES} pages");
        Err(SourceError::Refused(message))
    }

    async fn json<T: DeserializeOwned>(&self, url: &Url) -> Result<(T, HeaderMap), SourceError> {
        let (body, headers) = self.http.get(url, MAX_ANSWER_BYTES).await?;
        let read = serde_json::from_slice(&body).map_err(|_| {
            // What came instead is not told: it may be of anything that listens there.
            let path = told(url.path());
            SourceError::Refused(format!(
                "`{path}` is not answered as a Hub does: look at the source's endpoint"
            ))
        })?;
        Ok((read, headers))
    }

    fn api(&self, id: &str, what: &str, revision: &str) -> Url {
        self.url(
            ["api", "models"]
                .into_iter()
                .chain(id.split('/'))
                .chain([what, revision]),
        )
    }

    /// A slash within a segment is written as `%2F`, as a branch's name wants it.
    fn url<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.http.endpoint().clone();
        url.path_segments_mut()
            .expect("an HTTP URL has a path")
            .pop_if_empty()
            .extend(segments);
        url
    }
}

fn object(id: &str, commit: &str, entry: Entry) -> Result<Object, String> {
    let Entry {
        path, oid, size, lfs, ..
    } = entry;
    if !is_plain_path(&path) {
        return Err(format!("`{}` can't be the path of a file", told(&path)));
    }
    let sha256 = lfs.as_ref().map(|lfs| Digest::from_hex(&lfs.oid)).transpose();
    let sha256 = sha256.map_err(|_| format!("the digest of `{}` is none", told(&path)))?;
    if oid.is_empty() && sha256.is_none() {
        return Err(format!(
            "nothing tells the bytes of `{}` from others: it has no `oid`",
            told(&path)
        ));
    }
    Ok(Object {
        key: format!("{id}/resolve/{commit}/{path}"),
        path,
        size_bytes: lfs.map_or(size, |lfs| lfs.size),
        version: oid,
        sha256,
    })
}

/// The URL that `Link: <URL>; rel="next"` names.
fn next_page(url: &Url, headers: &HeaderMap) -> Result<Option<Url>, SourceError> {
    let links = headers.get_all(LINK).iter().filter_map(|link| link.to_str().ok());
    let next = links
        .flat_map(|links| links.split('<').skip(1))
        .filter_map(|link| link.split_once('>'))
        .find(|(_, rest)| rest.contains("rel=\"next\"") || rest.contains("rel=next"));
    let Some((next, _)) = next else {
        return Ok(None);
    };
    let next = url.join(next).ok().filter(|next| next.origin() == url.origin());
    let host = told(url.host_str().unwrap_or_default());
    let elsewhere = || format!("`{host}` continues its list at another server, which is not followed");
    next.map(Some).ok_or_else(|| SourceError::Refused(elsewhere()))
}
