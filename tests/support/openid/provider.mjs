// Copyright: (c) 2026, berth.odoo contributors
// GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
// A certified OpenID provider for the tests. Whoever types a login is that subject. Beside it are config.json; keys.json, made at the first start; and, as
// long as a test wants tokens that no honest provider issues, forge.json: claims to replace (null removes one), and alg or foreign for how to sign.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { randomUUID } from 'node:crypto';
import { SignJWT, UnsecuredJWT, decodeJwt, exportJWK, generateKeyPair, importJWK } from 'jose';
import { Provider } from 'oidc-provider';

const { issuer, port, clients, emails } = JSON.parse(readFileSync('config.json'));

async function newKey() {
  const { privateKey } = await generateKeyPair('RS256', { extractable: true });
  return { ...await exportJWK(privateKey), kid: randomUUID(), alg: 'RS256', use: 'sig' };
}

if (!existsSync('keys.json')) writeFileSync('keys.json', JSON.stringify([await newKey()]), { mode: 0o600 });
const keys = JSON.parse(readFileSync('keys.json'));

const provider = new Provider(issuer, {
  clients: clients.map((client) => ({
    grant_types: ['authorization_code'], response_types: ['code'], token_endpoint_auth_method: 'client_secret_basic', ...client,
  })),
  jwks: { keys },
  cookies: { keys: [randomUUID()] },
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
  conformIdTokenClaims: false,
  pkce: { required: () => true },
  findAccount: (ctx, sub) => ({
    accountId: sub,
    claims: () => ({ sub, name: `Person ${sub}`, email: emails[sub] ?? `${sub}@example.com`, email_verified: true }),
  }),
});

async function forged(token, { claims = {}, alg = 'RS256', foreign = false }) {
  const payload = { ...decodeJwt(token), ...claims };
  for (const [name, value] of Object.entries(payload)) if (value === null) delete payload[name];
  if (alg === 'none') return new UnsecuredJWT(payload).encode();
  const key = foreign ? { ...await newKey(), kid: keys[0].kid } : keys[0];
  const signer = alg === 'HS256' ? new TextEncoder().encode(clients[0].client_secret) : await importJWK(key, alg);
  return new SignJWT(payload).setProtectedHeader({ alg, kid: key.kid }).sign(signer);
}

provider.use(async (ctx, next) => {
  await next();
  if (ctx.path === '/token' && ctx.body?.id_token && existsSync('forge.json')) {
    ctx.body.id_token = await forged(ctx.body.id_token, JSON.parse(readFileSync('forge.json')));
  }
});
for (const event of ['grant.error', 'server_error', 'authorization.error', 'interaction.error']) {
  provider.on(event, (ctx, error) => console.error(event, error.message, error.error_description, error.error_detail));
}
createServer({ key: readFileSync('tls.key'), cert: readFileSync('tls.crt') }, provider.callback()).listen(port, '0.0.0.0');
