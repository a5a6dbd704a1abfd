// Uses a database with node-postgres, and prints what it returns: session.js HOST PORT.
'use strict';

const { Client, Pool } = require('pg');

const [host, port] = process.argv.slice(2);
const settings = { host, port: Number(port), user: 'postgres', database: 'postgres', application_name: 'node-postgres' };

async function withPool() {
	const pool = new Pool({ ...settings, max: 3 });
	const numbers = Array.from({ length: 20 }, (_, number) => number);
	const rows = await Promise.all(numbers.map((number) => pool.query('SELECT $1::int * 2 AS double', [number])));
	console.log(rows.map((result) => result.rows[0].double).join());

	const client = await pool.connect();
	await client.query('CREATE TEMP TABLE t (id int, name text, at timestamptz)');
	await client.query('BEGIN');
	for (const number of numbers) {
		// Prepared once, and then bound.
		const query = { name: 'insert', text: 'INSERT INTO t VALUES ($1, $2, $3)' };
		await client.query({ ...query, values: [number, `name ${number}`, new Date(Date.UTC(2020, 0, number + 1))] });
	}
	await client.query('COMMIT');
	console.log(JSON.stringify((await client.query('SELECT * FROM t ORDER BY id')).rows));
	console.log((await client.query('SELECT 1 AS a; SELECT 2 AS b')).map((result) => result.rows[0]));
	await client.query('BEGIN');
	await client.query('SELECT broken').catch((error) => console.log(error.code, error.position));
	await client.query('SELECT 1').catch((error) => console.log(error.code));
	await client.query('ROLLBACK');
	await client.query("SELECT repeat('x', 1000000) AS long").then(({ rows }) => console.log(rows[0].long.length));
	client.release();
	await pool.end();
}

async function withNotifications() {
	const client = new Client(settings);
	await client.connect();
	const notified = new Promise((resolve) => client.on('notification', resolve));
	await client.query('LISTEN node_postgres');
	await client.query("NOTIFY node_postgres, 'payload'");
	const { channel, payload } = await notified;
	console.log(channel, payload);
	await client.end();
}

withPool().then(withNotifications).catch((error) => {
	console.error(error);
	process.exitCode = 1;
});
