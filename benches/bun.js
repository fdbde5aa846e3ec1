// The same two handlers on Bun with bun:sqlite, the fastest peer of another language.
import { Database } from "bun:sqlite";

const [, , mode, port, folder] = process.argv;
const database = new Database(`${folder}/bench.sqlite3`);
database.run("PRAGMA busy_timeout = 5000");
database.run("PRAGMA journal_mode = WAL");
database.run(`PRAGMA synchronous = ${mode === "full" ? "FULL" : "NORMAL"}`);
const read = database.query("SELECT id, name, price FROM items WHERE id = ?1");
const insert = database.query("INSERT INTO events (item, note) VALUES (?1, 'a note of some length')");

Bun.serve({
  port: Number(port),
  hostname: "127.0.0.1",
  routes: {
    "/read/:id": (request) => Response.json(read.get(Number(request.params.id))),
    "/insert/:item": {
      POST: (request) => {
        insert.run(Number(request.params.item));
        return new Response("ok");
      },
    },
  },
});
