const fs = require('fs')
const { Client } = require('pg')

const check = process.env.CHECK
const assert = require('assert')

async function main() {
  const config = { ssl: { ca: fs.readFileSync(process.env.PGSSLROOTCERT), servername: process.env.PGHOST } }
  const client = new Client(config)
  await client.connect()
  if (check === 'scram' || check === 'iam') {
    console.log('as', (await client.query('select current_user as who')).rows[0].who)
  } else if (check === 'run') {
    for (let n = 0; n < 10; n++) {
      const res = await client.query({ name: 'add', text: 'select $1::int + 1 as n', values: [n] })
      assert.strictEqual(res.rows[0].n, n + 1)
    }
    await assert.rejects(client.query('select 1/0'), { code: '22012' })
    await client.query('begin')
    await client.query('create table node_run (n int)')
    await client.query('insert into node_run values ($1), ($2)', [1, 2])
    await client.query('commit')
    assert.strictEqual((await client.query('select sum(n)::int as n from node_run')).rows[0].n, 3)
  } else if (check === 'cancel') {
    const other = new Client(config)
    const query = client.query('select pg_sleep(1.5)')
    setTimeout(() => other.cancel(client, client.activeQuery), 500)
    await query
    assert.strictEqual((await client.query('select 1 as n')).rows[0].n, 1)
  }
  await client.end()
  console.log('ok', check)
}

main().catch((err) => { console.error(err); process.exit(1) })
