//! A file while it comes.

use std::path::Path;
use std::sync::Arc;

use ring::digest;
use tokio::io::AsyncWriteExt;

use crate::http::Result;
use crate::http::upload::Rules;
use crate::http::upload::UploadedFile;
use crate::http::upload::content::Content;
use crate::http::upload::file::blocking;
use crate::http::upload::not_stored;
use crate::http::upload::room::Held;
use crate::http::upload::room::Room;

/// A file of which the end is not there yet.
pub(in crate::http) struct Receiving {
    rules: Arc<Rules>,
    field: String,
    name: String,
    file: Option<tokio::fs::File>,
    size: usize,
    content: Content,
    digest: digest::Context,
    /// Why it is not taken; what comes of it then is dropped.
    refused: Option<String>,
    /// After the file, so that it is given back when that is gone.
    held: Held,
}

impl Receiving {
    pub(in crate::http) fn new(field: &str, name: &str, rules: Arc<Rules>, room: Room) -> Self {
        Self {
            rules,
            field: field.to_owned(),
            name: name.to_owned(),
            file: None,
            size: 0,
            content: Content::default(),
            digest: digest::Context::new(&digest::SHA256),
            refused: None,
            held: room.hold(),
        }
    }

    /// Whether somebody chose a file: a browser sends an empty part for a field where nobody did.
    pub(in crate::http) fn is_chosen(&self) -> bool {
        !self.name.is_empty() || self.size > 0
    }

    pub(in crate::http) async fn take(&mut self, bytes: &[u8], folder: &Path) -> Result<()> {
        self.size = self.size.saturating_add(bytes.len());
        if self.refused.is_some() || bytes.is_empty() {
            return Ok(());
        }
        if self.size > self.rules.file_bytes_max {
            self.refuse(self.rules.too_large());
        } else if !self.content.look(bytes, &self.rules.types) {
            self.refuse(self.rules.wrong_type());
        } else {
            self.held.take(bytes.len())?;
            self.digest.update(bytes);
            self.write(bytes, folder).await?;
        }
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8], folder: &Path) -> Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            empty => {
                // Without a name: when nobody has it open any more it is gone, also after a kill.
                let folder = folder.to_owned();
                let file = blocking(move || tempfile::tempfile_in(folder)).await?;
                empty.insert(tokio::fs::File::from_std(file))
            }
        };
        file.write_all(bytes).await.map_err(not_stored)
    }

    fn refuse(&mut self, why: String) {
        self.refused = Some(why);
        self.file = None;
        self.held.give_back();
    }

    /// The file, or why it is not taken.
    pub(in crate::http) async fn end(mut self) -> Result<Result<UploadedFile, String>> {
        if let Some(why) = self.refused {
            return Ok(Err(why));
        }
        let Some(mut file) = self.file else {
            return Ok(Err("This file is empty.".to_owned()));
        };
        let Some(media) = self.content.end(&self.rules.types) else {
            return Ok(Err(self.rules.wrong_type()));
        };
        file.flush().await.map_err(not_stored)?;
        let file = file.into_std().await;
        let digest = self.digest.finish();
        let size = self.size;
        Ok(Ok(UploadedFile::new(
            (self.field, &self.name),
            media,
            (file, size, self.held),
            digest,
        )))
    }
}
