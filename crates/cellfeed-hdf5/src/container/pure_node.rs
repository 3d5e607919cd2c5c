//! Groups, datasets and attributes through the pure reader, with what it hides filled in.

use std::collections::HashMap;

use cellfeed_core::{Error, Result};
use hdf5_pure::{Datatype, FormatError, Layout};

use super::attributes::{AttributeValue, Attributes};
use super::chunk_table::grid_of;
use super::element::ElementType;
use super::header::{self, Message};
use super::node::{Dataset, Filter, Group, Storage, filter_name};
use super::pure::PureContainer;
use super::pure_convert as convert;
use super::{components, links};

impl PureContainer {
    pub(super) fn group(&self, group: &hdf5_pure::Group, key: &str) -> Result<Group> {
        let values = group.attrs().map_err(convert::error)?;
        let types = group.attr_datatypes().map_err(convert::error)?;
        Ok(Group {
            members: self.members(group, key)?,
            attributes: self.attributes(values, &types, key)?,
        })
    }

    fn attributes(
        &self,
        mut values: HashMap<String, hdf5_pure::AttrValue>,
        types: &HashMap<String, Datatype>,
        key: &str,
    ) -> Result<Attributes> {
        self.check_count(types.len(), "attributes")?;
        Ok(types
            .iter()
            .map(|(name, datatype)| {
                let value = match values.remove(name) {
                    Some(value) => convert::attribute(value, Some(datatype)),
                    None => self.undecoded(name, datatype, key),
                };
                (name.clone(), value)
            })
            .collect())
    }

    /// An attribute that the library does not decode: perhaps an object reference.
    fn undecoded(&self, name: &str, datatype: &Datatype, key: &str) -> AttributeValue {
        let element = convert::element(datatype);
        if element != ElementType::Reference {
            return AttributeValue::Other(format!("{element}, which was not decoded"));
        }
        let target = self
            .header(key)
            .and_then(|header| header::attribute_reference(&header, self.sizes, name));
        let Some(target) = target else {
            return AttributeValue::Other("object reference that was not decoded".to_owned());
        };
        let names = self
            .names
            .get_or_init(|| links::paths(&self.source, self.sizes, self.root).unwrap_or_default());
        match names.get(&target) {
            Some(path) => AttributeValue::Reference(path.clone()),
            None => AttributeValue::Other(format!(
                "object reference to {target}, where no named object was found"
            )),
        }
    }

    /// The header messages of an object, if its address can be found (see [`links`]).
    fn header(&self, key: &str) -> Option<Vec<Message>> {
        let address = links::address_of(&self.source, self.sizes, self.root, components(key));
        header::messages(&self.source, self.sizes, address.ok()??).ok()
    }

    pub(super) fn describe(&self, dataset: &hdf5_pure::Dataset, key: &str) -> Result<Dataset> {
        let (mut shape, element) = shape_and_element(dataset)?;
        let storage = self.storage(dataset, &shape, &element)?;
        let written =
            matches!(storage, Storage::Compact | Storage::Contiguous { offset: Some(_), .. });
        // Whether a dataspace is null shows in what reading it gives.
        if shape.is_empty()
            && element.size() <= 1 << 16
            && matches!(storage, Storage::Compact | Storage::Contiguous { .. })
            && dataset.read_raw().is_ok_and(|bytes| bytes.is_empty())
        {
            shape = vec![0];
        }
        let filters: Vec<Filter> = dataset
            .filter_pipeline()
            .into_iter()
            .map(|f| Filter {
                id: f.id,
                name: f.name.filter(|n| !n.is_empty()).unwrap_or_else(|| filter_name(f.id)),
                client_data: f.client_data,
                optional: f.is_optional,
            })
            .collect();
        let mut fill = Some(Vec::new());
        if !written {
            let header = self.header(key);
            // The library gives an empty pipeline for one that it cannot parse.
            if filters.is_empty() && header.as_deref().is_some_and(header::has_filters) {
                return Err(Error::corrupt("the filter pipeline cannot be read"));
            }
            fill = header.as_deref().and_then(header::fill_value);
        }
        let size = usize::try_from(element.size()).unwrap_or(usize::MAX);
        let fill = match fill {
            Some(bytes) if bytes.is_empty() && size <= 1 << 16 => Some(vec![0; size]),
            Some(mut bytes) if bytes.len() == size => {
                element.to_little_endian(&mut bytes);
                Some(bytes)
            }
            _ => None,
        };
        let values = dataset.attrs().map_err(convert::error)?;
        let types = dataset.attr_datatypes().map_err(convert::error)?;
        let attributes = self.attributes(values, &types, key)?;
        Ok(Dataset { shape, element, storage, filters, fill, attributes })
    }

    pub(super) fn storage(
        &self,
        dataset: &hdf5_pure::Dataset,
        shape: &[u64],
        element: &ElementType,
    ) -> Result<Storage> {
        let bytes = shape
            .iter()
            .try_fold(element.size(), |n, &d| n.checked_mul(d))
            .ok_or_else(|| Error::corrupt(format!("the shape {shape:?} overflows")))?;
        match dataset.layout().map_err(convert::error)? {
            Layout::Compact { .. } => Ok(Storage::Compact),
            Layout::Contiguous { address: Some(offset), size } => {
                let end =
                    offset.checked_add(size).ok_or_else(|| Error::corrupt("offset overflows"))?;
                // A null dataspace has an element to us and no bytes.
                let fits = size >= bytes || (size == 0 && shape.is_empty());
                if end > self.source.len() || !fits {
                    return Err(Error::corrupt(format!(
                        "{bytes} bytes of data cannot lie in {size} at {offset} of a file of {}",
                        self.source.len()
                    )));
                }
                Ok(Storage::Contiguous { offset: Some(offset), size })
            }
            Layout::Contiguous { address: None, size } => {
                let external = dataset.read_raw_rows(0, 0).err().is_some_and(|e| {
                    matches!(e, hdf5_pure::Error::Format(FormatError::UnsupportedExternalStorage))
                });
                if external {
                    return Ok(Storage::Unsupported("external files".to_owned()));
                }
                Ok(Storage::Contiguous { offset: None, size })
            }
            Layout::Chunked { chunk_shape, .. } => {
                grid_of(shape, &chunk_shape)?;
                chunk_bytes(&chunk_shape, element)?;
                Ok(Storage::Chunked { chunk_shape })
            }
            Layout::Virtual => Ok(Storage::Unsupported("a virtual dataset".to_owned())),
            _ => Ok(Storage::Unsupported("a storage layout of a later HDF5".to_owned())),
        }
    }
}

pub(super) fn shape_and_element(dataset: &hdf5_pure::Dataset) -> Result<(Vec<u64>, ElementType)> {
    let shape = dataset.shape().map_err(convert::error)?;
    let datatype = dataset.datatype().map_err(convert::error)?;
    let element = convert::element(&datatype);
    if shape.len() > 32 || element.size() == 0 {
        return Err(Error::corrupt(format!(
            "{} dimensions of elements of {} bytes cannot be",
            shape.len(),
            element.size()
        )));
    }
    Ok((shape, element))
}

pub(super) fn chunk_bytes(chunk_shape: &[u64], element: &ElementType) -> Result<u64> {
    chunk_shape
        .iter()
        .try_fold(element.size(), |n, &d| n.checked_mul(d))
        .filter(|&n| n <= u64::from(u32::MAX))
        .ok_or_else(|| {
            Error::corrupt(format!("chunks of shape {chunk_shape:?} are beyond HDF5's 4 GiB"))
        })
}
