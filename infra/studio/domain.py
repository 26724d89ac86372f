"""The SageMaker domain and its people."""

from __future__ import annotations

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from infra.environment import Environment, Persona
from infra.network.placement import Placement
from infra.retention import unless_creation_fails
from infra.workload import Workload

_VOLUME_GIB = 20
"""A new home folder: the toolkit takes half a GiB, and a CT is some hundred MiB."""
_LARGEST_VOLUME_GIB = 100

_HIDDEN_APPLICATIONS = ("CodeEditor", "JupyterServer", "RStudioServerPro")
"""What no persona may start."""


class Domain(Construct):
    """A domain without a way to the internet, and a profile for each person.

    There is no shared file system: what a person keeps is on the volume of their space, under the platform's
    key. So the domain needs no NFS in the network, and leaves no file system behind when it is deleted;
    SageMaker refuses to delete a profile as long as it has a space.

    Name, way of signing in and key are create-only: a change of one of them makes another domain, without the
    spaces of the old one. The name is constant, the key is retained, and the old domain is kept wherever data
    are (`retain_data`), so that a change of `auth` loses nobody's work.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        environment: Environment,
        placement: Placement,
        key: kms.IKey,
        newcomer: Workload,
        personas: Mapping[Persona, Workload],
        start_script_arn: str,
    ) -> None:
        super().__init__(scope, id)
        studio = environment.studio
        self._domain = sagemaker.CfnDomain(
            self,
            "Domain",
            domain_name=f"monai-{environment.name}",
            auth_mode=studio.auth,
            app_network_access_type="VpcOnly",
            vpc_id=placement.vpc_id,
            subnet_ids=list(placement.subnet_ids),
            kms_key_id=key.key_arn,
            home_efs_file_system_creation="Disabled",
            domain_settings=sagemaker.CfnDomain.DomainSettingsProperty(
                # CloudTrail then says which person acted in a persona's role.
                execution_role_identity_config="USER_PROFILE_NAME",
                docker_settings=sagemaker.CfnDomain.DockerSettingsProperty(enable_docker_access="DISABLED"),
            ),
            default_user_settings=sagemaker.CfnDomain.UserSettingsProperty(
                # Of a profile that somebody makes by hand.
                execution_role=newcomer.role_arn,
                security_groups=[placement.notebook_security_group_id],
                auto_mount_home_efs="Disabled",
                studio_web_portal="ENABLED",
                default_landing_uri="studio::",
                studio_web_portal_settings=sagemaker.CfnDomain.StudioWebPortalSettingsProperty(
                    hidden_app_types=list(_HIDDEN_APPLICATIONS)
                ),
                sharing_settings=sagemaker.CfnDomain.SharingSettingsProperty(
                    # Outputs of notebooks show patients.
                    notebook_output_option="Disabled"
                ),
                space_storage_settings=sagemaker.CfnDomain.DefaultSpaceStorageSettingsProperty(
                    default_ebs_storage_settings=sagemaker.CfnDomain.DefaultEbsStorageSettingsProperty(
                        default_ebs_volume_size_in_gb=_VOLUME_GIB,
                        maximum_ebs_volume_size_in_gb=_LARGEST_VOLUME_GIB,
                    )
                ),
                jupyter_lab_app_settings=sagemaker.CfnDomain.JupyterLabAppSettingsProperty(
                    # Built in: it runs at every start, newest version, and nobody has to choose it
                    # (https://docs.aws.amazon.com/sagemaker/latest/dg/studio-lifecycle-configurations.html).
                    built_in_lifecycle_config_arn=start_script_arn,
                    default_resource_spec=sagemaker.CfnDomain.ResourceSpecProperty(
                        instance_type=studio.instance_type
                    ),
                    app_lifecycle_management=sagemaker.CfnDomain.AppLifecycleManagementProperty(
                        idle_settings=sagemaker.CfnDomain.IdleSettingsProperty(
                            lifecycle_management="ENABLED",
                            idle_timeout_in_minutes=studio.idle_minutes,
                            # Nobody can choose another time.
                            min_idle_timeout_in_minutes=studio.idle_minutes,
                            max_idle_timeout_in_minutes=studio.idle_minutes,
                        )
                    ),
                ),
            ),
        )
        self._domain.apply_removal_policy(
            unless_creation_fails(
                cdk.RemovalPolicy.RETAIN if environment.protection.retain_data else cdk.RemovalPolicy.DESTROY
            )
        )
        # SageMaker tries the roles when it makes the domain.
        self._domain.node.add_dependency(newcomer.policy)
        for user in studio.users:
            profile = sagemaker.CfnUserProfile(
                self,
                f"User-{user.name}",
                domain_id=self._domain.attr_domain_id,
                user_profile_name=user.name,
                single_sign_on_user_identifier="UserName" if user.sso_user else None,
                single_sign_on_user_value=user.sso_user,
                user_settings=sagemaker.CfnUserProfile.UserSettingsProperty(
                    execution_role=personas[user.persona].role_arn
                ),
            )
            profile.node.add_dependency(*personas[user.persona].policies)

    @property
    def domain_id(self) -> str:
        return self._domain.attr_domain_id

    @property
    def url(self) -> str:
        return self._domain.attr_url
