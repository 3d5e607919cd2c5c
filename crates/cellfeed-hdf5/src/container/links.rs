//! Links: which object lies at which address, and what soft links stand for.
//!
//! Groups in the old style (symbol tables) and new ones with few members (links in the header) are
//! followed. A new-style group with many members keeps its links in a fractal heap; such a group
//! has no addresses here, and what needs one says that it does not know.
//!
//! Source: HDF5 File Format Specification 3.0, III.A-D and IV.A.2.g.

use std::collections::{HashMap, VecDeque};

use cellfeed_core::{Error, Result};

use super::cache::Paged;
use super::components;
use super::header::{LINK, LINK_INFO, Message, SYMBOL_TABLE, Sizes, is_object, messages, number};

const DEPTH: usize = 16;
/// Objects that are named before the search for a reference's target is given up.
const OBJECTS: usize = 1 << 20;

/// Soft links that are followed for one path.
const HOPS: usize = 16;

/// What a link leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    /// A hard link: the object's header address.
    Object(u64),
    /// A soft link: a path, from the root or from the group that holds the link.
    Soft(Vec<u8>),
    /// A link to another file, or of a kind that is not known.
    Elsewhere,
}

/// A link: the name's bytes and where it leads.
type Link = (Vec<u8>, Target);

/// The links of a group. Empty for a dataset; `None` for a group whose links are in dense
/// storage.
fn members(source: &Paged, sizes: Sizes, header: &[Message]) -> Result<Option<Vec<Link>>> {
    let mut found = Vec::new();
    for message in header {
        match message.kind {
            SYMBOL_TABLE => {
                let tree = sizes.address_at(&message.body, 0);
                let heap = sizes.address_at(&message.body, sizes.offset);
                if let (Some(tree), Some(heap)) = (tree, heap) {
                    let names = local_heap(source, sizes, heap)?;
                    symbols(source, sizes, tree, &names, 0, &mut found)?;
                }
            }
            LINK => found.extend(link(&message.body, sizes)),
            LINK_INFO => {
                let flags = message.body.get(1).copied().unwrap_or(0);
                let at = if flags & 1 != 0 { 10 } else { 2 };
                if sizes.address_at(&message.body, at).is_some() {
                    return Ok(None);
                }
            }
            _ => {}
        }
    }
    Ok(Some(found))
}

fn link(body: &[u8], sizes: Sizes) -> Option<Link> {
    if *body.first()? != 1 {
        return None;
    }
    let flags = *body.get(1)?;
    let mut at = 2;
    let mut kind = 0;
    if flags & 0x08 != 0 {
        kind = *body.get(at)?;
        at += 1;
    }
    at += if flags & 0x04 != 0 { 8 } else { 0 };
    at += usize::from(flags & 0x10 != 0);
    let width = 1usize << (flags & 3);
    let len = usize::try_from(number(body.get(at..at + width)?)).ok()?;
    at += width;
    let end = at.checked_add(len)?;
    let target = match kind {
        0 => Target::Object(sizes.address_at(body, end)?),
        1 => {
            let len = usize::try_from(number(body.get(end..end + 2)?)).ok()?;
            Target::Soft(body.get(end + 2..end.checked_add(2)?.checked_add(len)?)?.to_vec())
        }
        _ => Target::Elsewhere,
    };
    Some((body.get(at..end)?.to_vec(), target))
}

fn damaged(what: &str, address: u64) -> Error {
    Error::corrupt(format!("{what} is damaged")).with("offset", address)
}

fn local_heap(source: &Paged, sizes: Sizes, address: u64) -> Result<Vec<u8>> {
    let wrong = || damaged("a heap of names", address);
    let head = source.read(address, 8 + 2 * sizes.length + sizes.offset)?;
    if !head.starts_with(b"HEAP") {
        return Err(wrong());
    }
    let len = sizes.length_at(&head, 8).ok_or_else(wrong)?;
    let at = sizes.address_at(&head, 8 + 2 * sizes.length).ok_or_else(wrong)?;
    source.read(at, len)
}

fn symbols(
    source: &Paged,
    sizes: Sizes,
    address: u64,
    names: &[u8],
    depth: usize,
    to: &mut Vec<Link>,
) -> Result<()> {
    let wrong = || damaged("a group's tree of members", address);
    if depth > DEPTH || to.len() > OBJECTS {
        return Err(wrong());
    }
    let head = source.read(address, 8)?;
    let count = usize::try_from(number(head.get(6..8).unwrap_or_default())).unwrap_or(0);
    if head.starts_with(b"SNOD") {
        let entry = 2 * sizes.offset + 24;
        let at = address.checked_add(8).ok_or_else(wrong)?;
        for e in source.read(at, count.saturating_mul(entry))?.chunks_exact(entry) {
            let text = |at: usize, width: usize| {
                let at = usize::try_from(number(e.get(at..at + width).unwrap_or_default()));
                let text = at.ok().and_then(|at| names.get(at..))?;
                text.split(|&b| b == 0).next().map(<[u8]>::to_vec)
            };
            let name = text(0, sizes.offset).ok_or_else(wrong)?;
            // The entry of a soft link has the cache type 2, and its path in the scratch space.
            let after = 2 * sizes.offset;
            let target = if e.get(after..after + 4) == Some([2, 0, 0, 0].as_slice()) {
                Target::Soft(text(after + 8, 4).ok_or_else(wrong)?)
            } else {
                match sizes.address_at(e, sizes.offset) {
                    Some(address) => Target::Object(address),
                    None => Target::Elsewhere,
                }
            };
            to.push((name, target));
        }
        return Ok(());
    }
    if !head.starts_with(b"TREE") || head.get(4) != Some(&0) {
        return Err(wrong());
    }
    let siblings = u64::try_from(2 * sizes.offset).unwrap_or(16);
    let at = address.checked_add(8 + siblings).ok_or_else(wrong)?;
    let pair = sizes.length + sizes.offset;
    for child in source.read(at, count.saturating_mul(pair))?.chunks_exact(pair) {
        let child = sizes.address_at(child, sizes.length).ok_or_else(wrong)?;
        symbols(source, sizes, child, names, depth + 1, to)?;
    }
    Ok(())
}

/// The header address of the object at a path; `None` if a group on the way is in dense storage or
/// has no such member.
pub(crate) fn address_of<'p>(
    source: &Paged,
    sizes: Sizes,
    root: u64,
    path: impl Iterator<Item = &'p str>,
) -> Result<Option<u64>> {
    let mut at = root;
    for name in path {
        let header = messages(source, sizes, at)?;
        let Some(found) = members(source, sizes, &header)? else { return Ok(None) };
        match found.iter().find(|(n, _)| n == name.as_bytes()) {
            Some((_, Target::Object(address))) => at = *address,
            _ => return Ok(None),
        }
    }
    Ok(Some(at))
}

/// The same path without soft links; `None` if there are none on it, or if it cannot be told.
/// `NotFound` for a link to nothing, `Unsupported` for one to another file.
pub(crate) fn canonical(
    source: &Paged,
    sizes: Sizes,
    root: u64,
    path: &str,
) -> Result<Option<String>> {
    let mut todo: VecDeque<String> = components(path).map(str::to_owned).collect();
    let mut done: Vec<(String, u64)> = Vec::new();
    let mut hops = 0;
    while let Some(name) = todo.pop_front() {
        let at = done.last().map_or(root, |(_, address)| *address);
        let header = messages(source, sizes, at)?;
        let Some(found) = members(source, sizes, &header)? else { return Ok(None) };
        match found.into_iter().find(|(n, _)| n == name.as_bytes()).map(|(_, target)| target) {
            Some(Target::Object(address)) => done.push((name, address)),
            Some(Target::Soft(to)) => {
                hops += 1;
                if hops > HOPS {
                    return Err(Error::corrupt("the path leads through soft links in a circle"));
                }
                let to = String::from_utf8_lossy(&to).into_owned();
                if to.starts_with('/') {
                    done.clear();
                }
                for part in components(&to).collect::<Vec<_>>().into_iter().rev() {
                    todo.push_front(part.to_owned());
                }
            }
            Some(Target::Elsewhere) => {
                return Err(Error::unsupported(format!(
                    "{name:?} is a link to another file; links out of a file are not followed"
                )));
            }
            None if hops > 0 => {
                return Err(Error::not_found(format!(
                    "a soft link leads to {name:?}, which is absent"
                )));
            }
            None => return Ok(None),
        }
    }
    let names: Vec<String> = done.into_iter().map(|(name, _)| name).collect();
    Ok((hops > 0).then(|| format!("/{}", names.join("/"))))
}

/// The names in the group at `address`, without those of named datatypes; `None` if its links are
/// in dense storage. The pure reader cannot list an old-style group that holds a soft link, nor one
/// with a damaged member; here such a member is listed, and opening it gives the error.
pub(crate) fn member_names(
    source: &Paged,
    sizes: Sizes,
    address: u64,
) -> Result<Option<Vec<String>>> {
    let header = messages(source, sizes, address)?;
    let Some(found) = members(source, sizes, &header)? else { return Ok(None) };
    let mut names = Vec::new();
    for (name, target) in found {
        if let Target::Object(at) = target
            && messages(source, sizes, at).is_ok_and(|m| !is_object(&m))
        {
            continue;
        }
        names.push(String::from_utf8(name).map_err(|e| {
            let shown = e.as_bytes().get(..64).unwrap_or(e.as_bytes());
            Error::corrupt(format!(
                "a member's name is not UTF-8: {}",
                String::from_utf8_lossy(shown)
            ))
        })?);
    }
    Ok(Some(names))
}

/// The path of every object that can be reached, by header address. An object with several names
/// gets one of the shortest.
pub(crate) fn paths(source: &Paged, sizes: Sizes, root: u64) -> Result<HashMap<u64, String>> {
    let mut names = HashMap::from([(root, String::from("/"))]);
    let mut todo = VecDeque::from([(root, String::new())]);
    while let Some((address, path)) = todo.pop_front() {
        // One damaged object must not hide the names of all others.
        let Ok(header) = messages(source, sizes, address) else { continue };
        let Ok(Some(found)) = members(source, sizes, &header) else { continue };
        for (name, target) in found {
            let (Ok(name), Target::Object(target)) = (String::from_utf8(name), target) else {
                continue;
            };
            if names.len() < OBJECTS && !names.contains_key(&target) {
                let path = format!("{path}/{name}");
                names.insert(target, path.clone());
                todo.push_back((target, path));
            }
        }
    }
    Ok(names)
}
