# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lab virtual machines for the demo and the Molecule scenarios.

A lab VM is a Debian 13 system container: systemd as PID 1, sshd, its own Docker Engine. The playbooks next to this
package (``create.yml``, ``prepare.yml``, ``destroy.yml``) are thin: they call ``python -m berth_lab``. The package
needs the Python standard library, PyYAML and ansible-core (for the vaulted files), the ``docker`` command, ``ssh-keygen`` and ``openssl``.
"""

from __future__ import annotations
