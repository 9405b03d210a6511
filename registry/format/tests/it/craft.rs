//! Makes zips and pickles byte by byte, so that each field can lie.

/// An entry, with what the directory says of it.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    name: String,
    content: Vec<u8>,
    pub(crate) method: u16,
    pub(crate) flags: u16,
    /// Says another size than the content has.
    pub(crate) size: Option<u32>,
    /// Says another place than the local header has.
    pub(crate) header_offset: Option<u32>,
}

/// A zip of stored entries.
#[derive(Debug, Default)]
pub(crate) struct Zip {
    pub(crate) entries: Vec<Entry>,
    /// Says another number of entries.
    pub(crate) n_entries: Option<u16>,
    /// Writes sizes and places in their 64-bit forms.
    pub(crate) zip64: bool,
}

impl Zip {
    pub(crate) fn entry(&mut self, name: &str, content: &[u8]) -> &mut Self {
        let (name, content) = (name.to_owned(), content.to_vec());
        self.entries.push(Entry {
            name,
            content,
            ..Entry::default()
        });
        self
    }

    pub(crate) fn finish(&self) -> Vec<u8> {
        let (mut file, mut directory) = (Vec::new(), Vec::new());
        for entry in &self.entries {
            let size = entry.size.unwrap_or(entry.content.len() as u32);
            let header_offset = entry.header_offset.unwrap_or(file.len() as u32);
            let name_size = (entry.name.len() as u16).to_le_bytes();
            file.extend(b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0");
            file.extend([0; 12]);
            file.extend([name_size, [0; 2]].concat());
            file.extend(entry.name.bytes());
            file.extend(&entry.content);

            let extra = match self.zip64 {
                true => [u64::from(size), u64::from(size), u64::from(header_offset)]
                    .map(u64::to_le_bytes)
                    .concat(),
                false => Vec::new(),
            };
            let plain = |value: u32| if self.zip64 { [0xff; 4] } else { value.to_le_bytes() };
            directory.extend(b"PK\x01\x02\x14\0\x14\0");
            directory.extend([entry.flags.to_le_bytes(), entry.method.to_le_bytes()].concat());
            directory.extend([0; 8]);
            directory.extend([plain(size), plain(size)].concat());
            let extra_size = if self.zip64 { extra.len() as u16 + 4 } else { 0 };
            directory.extend([name_size, extra_size.to_le_bytes(), [0; 2]].concat());
            directory.extend([0; 8]);
            directory.extend(plain(header_offset));
            directory.extend(entry.name.bytes());
            if self.zip64 {
                directory.extend([1_u16.to_le_bytes(), (extra.len() as u16).to_le_bytes()].concat());
                directory.extend(extra);
            }
        }
        let (offset, size) = (file.len() as u64, directory.len() as u64);
        let n = self.n_entries.unwrap_or(self.entries.len() as u16);
        file.extend(directory);
        if self.zip64 {
            let end64_at = file.len() as u64;
            file.extend(b"PK\x06\x06");
            file.extend([44_u64.to_le_bytes(), [0; 8], [0; 8]].concat()[..20].iter());
            file.extend(
                [u64::from(n), u64::from(n), size, offset]
                    .map(u64::to_le_bytes)
                    .concat(),
            );
            file.extend(b"PK\x06\x07\0\0\0\0");
            file.extend([&end64_at.to_le_bytes()[..], &[1, 0, 0, 0]].concat());
        }
        file.extend(b"PK\x05\x06\0\0\0\0");
        let n = if self.zip64 { [0xff; 2] } else { n.to_le_bytes() };
        file.extend([n, n].concat());
        let plain = |value: u64| {
            if self.zip64 {
                [0xff; 4]
            } else {
                (value as u32).to_le_bytes()
            }
        };
        file.extend([plain(size), plain(offset)].concat());
        file.extend([0; 2]);
        file
    }
}

/// A pickle that gives what `value` makes.
pub(crate) fn pickle(value: &[u8]) -> Vec<u8> {
    [b"\x80\x02", value, b"."].concat()
}

pub(crate) fn bytes(value: &[u8]) -> Vec<u8> {
    value.to_vec()
}

pub(crate) fn text(value: &str) -> Vec<u8> {
    [b"X", &(value.len() as u32).to_le_bytes()[..], value.as_bytes()].concat()
}

pub(crate) fn int(value: i64) -> Vec<u8> {
    [b"\x8a\x08", &value.to_le_bytes()[..]].concat()
}

/// `module name`.
pub(crate) fn global(name: &str) -> Vec<u8> {
    format!("c{}\n", name.replace(' ', "\n")).into_bytes()
}

pub(crate) fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(", &items.concat()[..], b"t"].concat()
}

pub(crate) fn dict(items: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let items: Vec<_> = items
        .iter()
        .flat_map(|(key, value)| [text(key), value.clone()])
        .collect();
    [b"}(", &items.concat()[..], b"u"].concat()
}

pub(crate) fn state_dict(tensors: &[(&str, Vec<u8>)]) -> Vec<u8> {
    pickle(&dict(tensors))
}

/// The arguments of `_rebuild_tensor_v2`.
pub(crate) fn tensor_args(
    class: &str,
    key: &str,
    numel: i64,
    first: i64,
    shape: &[i64],
    strides: &[i64],
) -> Vec<Vec<u8>> {
    let numbers = |values: &[i64]| tuple(&values.iter().map(|value| int(*value)).collect::<Vec<_>>());
    let class = match class {
        "UntypedStorage" => global("torch.storage UntypedStorage"),
        _ => global(&format!("torch {class}")),
    };
    let id = tuple(&[text("storage"), class, text(key), text("cpu"), int(numel)]);
    let storage = [id, b"Q".to_vec()].concat();
    let hooks = [global("collections OrderedDict"), b")R".to_vec()].concat();
    vec![
        storage,
        int(first),
        numbers(shape),
        numbers(strides),
        bytes(b"\x89"),
        hooks,
    ]
}

pub(crate) fn float_tensor(key: &str, numel: i64, first: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let args = tensor_args("FloatStorage", key, numel, first, shape, strides);
    [global("torch._utils _rebuild_tensor_v2"), tuple(&args), b"R".to_vec()].concat()
}
